"""What people are told of money: what was surely spent, and what may have been besides, only where there is such a thing."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path

import pytest

from engine.cli.main import Exit, run_cli
from engine.domain.cost import Charge, Usage
from engine.domain.results import Attempt, StageResult
from engine.domain.stage import StageState
from engine.plan.build import build
from engine.plan.catalogue import Catalogue
from engine.spec.expand import expand
from engine.spec.load import read_sweep
from engine.store.layout import RunDirectory
from engine.store.publish import publish
from engine.store.state import Settled, State

SPEC = b"""\
sweep: spent
recipe: {model: standin/aligned, benchmark: standin/policy:1, judges: [standin/rules]}
"""
LOST = Usage(prompt_tokens=90, unheard_prompt_tokens=1000, unheard_generated_tokens=200)
BESIDES = "up to $0.02 more for 1,200 tokens, if the provider billed replies that never came"
CASES = [
    (Usage(prompt_tokens=90), Charge(Decimal("1.5")), "$1.50", ""),
    (LOST, Charge(Decimal("1.5"), Decimal("0.02")), "$1.50", f", and {BESIDES}"),
    (LOST, Charge(None, None), "unknown", f", and {BESIDES.replace('$0.02', 'an unknown sum')}"),
]


def spend(root: Path, usage: Usage, charge: Charge) -> None:
    loaded = read_sweep(SPEC, "spent.yaml")
    expansion = expand(loaded.sweep, loaded.positions)
    plan = build(loaded.sweep, expansion.cells, expansion.counts, Catalogue())
    run = RunDirectory(root)
    state = State.open(run)
    state.adopt(plan)
    key = next(iter(plan.stages))
    attempt = Attempt(key, "host-0", 1.0, 2.0, usage, StageResult(key, (), None))
    state.settle([Settled(attempt, StageState.DONE, charge)])
    state.close()
    publish(run)


@pytest.mark.parametrize(("usage", "charge", "surely", "besides"), CASES, ids=["heard", "lost", "unpriced"])
def test_every_total_says_it(
    usage: Usage, charge: Charge, surely: str, besides: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spend(tmp_path / "run", usage, charge)
    where = ["--run", str(tmp_path / "run")]
    assert run_cli(["status", *where]) == Exit.OK
    assert f"of device time, {surely}{besides}\n" in capsys.readouterr().out
    assert run_cli(["status", "--json", *where]) == Exit.OK
    found = json.loads(capsys.readouterr().out)
    wanted = [None if usd is None else str(usd) for usd in (charge.usd, charge.unheard_usd)]
    assert [found["usd"], found["unheard_usd"], found["unheard_tokens"]] == [*wanted, usage.unheard.tokens]
    assert run_cli(["query", "cost", *where]) == Exit.OK
    said = capsys.readouterr().err
    assert besides.removeprefix(", ") in said
    assert ("more" in said) == bool(besides)
