"""What a plan says of a run directory in which something was bought already."""

from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest

from engine.cli.main import Exit, run_cli
from engine.domain.cost import Charge, Usage
from engine.domain.results import Attempt
from engine.domain.stage import StageKind, StageState
from engine.plan.bill import BillLine
from engine.run.accounts.journal import JobRecord, Journal
from engine.run.drive.prepare import Prepared, prepare
from engine.store.layout import RunDirectory
from engine.store.state import Settled, State

SPEC = """\
sweep: bought
recipe:
  model: hosted/openai:standin-aligned
  data: {source: standin/explicit, n: 10, allow_upload: true}
  tune: {adapter: hosted/openai}
  benchmark: standin/policy:1
  generate: {adapter: hosted/openai}
  judges: [standin/rules]
run:
  budget: {usd: 1}
  accounts: {ours: {provider: hosted/openai}}
"""


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    path = tmp_path / "bought.yaml"
    path.write_text(SPEC)
    return path


def tune_line(prepared: Prepared) -> BillLine:
    return next(line for line in prepared.bill if line.kind is StageKind.TUNE)


@pytest.mark.usefixtures("acme")
def test_what_generators_say_of_the_models_is_printed_once_a_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "clay.yaml"
    path.write_text("""\
sweep: clay
recipe:
  model: acme/clay
  data: {source: standin/explicit, n: 10}
  tune: {use: acme/press, epochs: 1}
  generate: {use: acme/voice, temperature: 1.0}
  benchmark: standin/policy:1
  judges: [standin/rules]
axes: {data.n: [10, 20]}
""")
    assert run_cli(["plan", str(path), "--out", str(tmp_path / "run")]) == Exit.OK
    assert capsys.readouterr().out.count("acme/clay: its voice is that of") == 1


def test_a_job_that_is_in_the_books_is_not_forecast_again(spec: Path, tmp_path: Path) -> None:
    root = tmp_path / "run"
    fresh = prepare(spec, (), root)
    assert tune_line(fresh).usd > (Decimal(), Decimal(), Decimal())
    key = next(key for key, stage in fresh.plan.stages.items() if stage.kind is StageKind.TUNE)
    paid = JobRecord(key, "ours", "hosted/openai", 1.0, "job-1", "succeeded", is_booked=True)
    for record in (replace(paid, is_booked=False), replace(paid, state="failed")):
        Journal(RunDirectory(root).jobs).write(record)
        assert tune_line(prepare(spec, (), root)) == tune_line(fresh)
    Journal(RunDirectory(root).jobs).write(paid)
    found = prepare(spec, (), root)
    assert (tune_line(found).new, tune_line(found).usd) == (1, (0, 0, 0))
    assert found.caps[0].high == fresh.caps[0].high - tune_line(fresh).usd[2]


def test_a_plan_says_whether_what_is_left_fits_under_the_caps(
    spec: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "run"
    plan = prepare(spec, (), root).plan
    state = State.open(RunDirectory(root))
    state.adopt(plan)
    attempt = Attempt(next(iter(plan.stages)), "host-0", 1.0, 2.0, Usage(), None)
    state.settle([Settled(attempt, StageState.PENDING, Charge(Decimal("0.9"), Decimal("0.05")))])
    state.close()
    words = {"0.95": "does not fit, and the run will stop there", "9": "fits, and so does the high of"}
    for cap, said in words.items():
        given = ["plan", str(spec), "--out", str(root), "--set", f"run.budget.usd={cap}"]
        assert run_cli(given) == Exit.OK
        (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("Budget"))
        assert ", of which $0.95 is used; the expected $0.00" in line
        assert said in line
        assert run_cli([*given, "--json"]) == Exit.OK
        (found,) = json.loads(capsys.readouterr().out)["budget"]
        assert (found["name"], found["cap"], found["used"], found["fits"]) == ("usd", cap, "0.95", cap == "9")
