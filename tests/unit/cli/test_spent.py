"""What people are told of money: what was surely spent, and what may have been besides, only where there is such a thing."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path

import pytest

from analysis.evidence import gather
from analysis.page import compose
from engine.cli.main import Exit, run_cli
from engine.cli.run_verb import say_spent
from engine.domain.cost import Charge, Usage
from engine.domain.results import Attempt, StageResult
from engine.domain.stage import StageState
from engine.plan.build import build
from engine.plan.catalogue import Catalogue
from engine.spec.expand import expand
from engine.spec.load import read_sweep
from engine.store.layout import RunDirectory
from engine.store.publish import publish
from engine.store.reader import open_results
from engine.store.state import Settled, State

SPEC = b"""\
sweep: spent
recipe: {model: standin/aligned, benchmark: standin/policy:1, judges: [standin/rules]}
"""
LOST = Usage(prompt_tokens=90, possibly_billed_prompt_tokens=1000, possibly_billed_generated_tokens=200)
BESIDES = "up to $0.02 more for 1,200 tokens, if the provider billed replies that never came"
CASES = [
    (Usage(prompt_tokens=90), Charge(Decimal("1.5")), "$1.50", ""),
    (LOST, Charge(Decimal("1.5"), Decimal("0.02")), "$1.50", f", and {BESIDES}"),
    (LOST, Charge(None, None), "unknown", f", and {BESIDES.replace('$0.02', 'an unknown sum')}"),
]


def spend(root: Path, *tries: tuple[str | None, Usage, Charge]) -> None:
    """Publish a run with one attempt a stage, each on an account, or here."""
    loaded = read_sweep(SPEC, "spent.yaml")
    expansion = expand(loaded.sweep, loaded.positions)
    plan = build(loaded.sweep, expansion.cells, expansion.counts, Catalogue())
    run = RunDirectory(root)
    state = State.open(run)
    by_key = dict(zip(plan.stages, tries, strict=False))
    state.adopt(plan, {key: account for key, (account, _, _) in by_key.items() if account is not None})
    for key, (_, usage, charge) in by_key.items():
        attempt = Attempt(key, "host-0", 1.0, 2.0, usage, StageResult(key, (), None))
        state.settle([Settled(attempt, StageState.DONE, charge)])
    state.close()
    publish(run)


@pytest.mark.parametrize(("usage", "charge", "surely", "besides"), CASES, ids=["heard", "lost", "unpriced"])
def test_every_total_says_it(
    usage: Usage, charge: Charge, surely: str, besides: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spend(tmp_path / "run", (None, usage, charge))
    where = ["--run", str(tmp_path / "run")]
    assert run_cli(["status", *where]) == Exit.OK
    assert f"of device time, {surely}{besides}\n" in capsys.readouterr().out
    assert run_cli(["status", "--json", *where]) == Exit.OK
    found = json.loads(capsys.readouterr().out)
    wanted = [None if usd is None else str(usd) for usd in (charge.usd, charge.possibly_billed_usd)]
    assert [found["usd"], found["possibly_billed_usd"], found["possibly_billed_tokens"]] == [
        *wanted,
        usage.possibly_billed.tokens,
    ]
    assert run_cli(["query", "cost", *where]) == Exit.OK
    said = capsys.readouterr().err
    assert besides.removeprefix(", ") in said
    assert ("more" in said) == bool(besides)


HERE = "an hour of this machine"
THERE = "what is bought of lab"
MIXED = [
    ([("ours", Decimal("0.0894")), (None, None)], f"at least $0.089: {HERE} has no price"),
    ([("ours", Decimal(2)), ("lab", None)], f"at least $2.00: {THERE} has no price"),
    ([("ours", Decimal(2)), (None, Decimal(1))], "$3.00"),
]


@pytest.mark.parametrize(("charges", "sure"), MIXED, ids=["machine", "provider", "all known"])
def test_what_is_known_is_told_and_what_is_not_is_named(
    charges: list[tuple[str | None, Decimal | None]], sure: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spend(tmp_path / "run", *((account, Usage(prompt_tokens=90), Charge(usd)) for account, usd in charges))
    say_spent(tmp_path / "run")
    assert capsys.readouterr().err == f"Spent in this run directory: {sure}\n"
    where = ["--run", str(tmp_path / "run")]
    assert run_cli(["status", *where]) == Exit.OK
    assert f"of device time, {sure}\n" in capsys.readouterr().out
    assert run_cli(["status", "--json", *where]) == Exit.OK
    found = json.loads(capsys.readouterr().out)
    known = [usd for _, usd in charges if usd is not None]
    assert found["usd"] == (str(sum(known)) if len(known) == len(charges) else None)
    assert Decimal(found["known_usd"]) == sum(known)
    assert found["unpriced"] == [account for account, usd in charges if usd is None]
    with open_results(tmp_path / "run") as results:
        page = compose(gather(results))
    assert dict(page.facts)["Bill"] == sure
    assert dict(page.provenance)["Bill"].startswith(f"{sure}, ")


def test_where_no_price_is_known_no_money_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spend(tmp_path / "run", (None, Usage(device_seconds=2), Charge(None)))
    say_spent(tmp_path / "run")
    assert run_cli(["status", "--run", str(tmp_path / "run")]) == Exit.OK
    with open_results(tmp_path / "run") as results:
        assert dict(compose(gather(results)).facts)["Bill"] == "2 s of device time"
    said = capsys.readouterr()
    assert said.err == ""
    assert "\n2 s of device time\n" in said.out
