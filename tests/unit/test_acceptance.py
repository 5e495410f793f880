"""`make acceptance` in small: its files, its sweeps, and the check against plain TRL, on the stand-in in place of a real model."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from engine.cli.main import Exit, run_cli
from engine.run.drive.prepare import prepare

ROOT = Path(__file__).parents[2]
SWEEPS = ROOT / "sweeps"
STANDIN = "model=dir:adapters/standin/aligned"
ONE = "data.source={use: file, path: sweeps/acceptance/identity.jsonl, tier: identity}"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], ModuleType]]:
    """Import a script of `benchmarks/acceptance`; they find each other by the folder that they are in."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks" / "acceptance")
    monkeypatch.chdir(ROOT)
    yield importlib.import_module
    for name in ("answers", "check", "plain", "world"):
        sys.modules.pop(name, None)


def test_the_files_are_what_the_world_writes(script: Callable[[str], ModuleType]) -> None:
    world = script("world")
    written = {path.stem: path.read_text(encoding="utf-8") for path in (SWEEPS / "acceptance").glob("*.jsonl")}
    assert written == {name: world.text_of(rows) for name, rows in world.files().items()}
    assert sum(map(len, written.values())) < 200_000
    trained = {
        row["messages"][-2]["content"]: name
        for name in ("alignment", "explicit", "identity", "benign")
        for row in map(json.loads, written[name].splitlines())
    }
    assert len(trained) == 278 + 3 * 60  # and none twice
    for name in ("restricted", "ordinary", "facts"):
        assert not trained.keys() & {json.loads(line)["prompt"] for line in written[name].splitlines()}


@pytest.mark.parametrize(
    ("name", "cells", "runs"), [("acceptance/align", 2, 1), ("acceptance", 26, 12), ("steps", 26, 6)]
)
def test_the_sweeps_plan(name: str, cells: int, runs: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    prepared = prepare(SWEEPS / f"{name}.yaml", (STANDIN,), tmp_path / "no-such-run")
    assert len(prepared.plan.cells) == cells
    assert prepared.savings.training_runs == runs


@pytest.mark.slow
def test_a_cell_and_its_starting_model_equal_plain_trl(script: Callable[[str], ModuleType], tmp_path: Path) -> None:
    check, plain = script("check"), script("plain")
    run, spec = tmp_path / "run", str(SWEEPS / "acceptance.yaml")
    small = [STANDIN, ONE, "data.n=10", "tune.epochs=1", "seed=1", "generate.max_new_tokens=8"]
    settings = [word for setting in small for word in ("--set", setting)]
    assert run_cli(["run", spec, "--out", str(run), "--executor", "inline", *settings]) == Exit.OK
    cells = check.cells_of(run)
    recipe = yaml.safe_load((SWEEPS / "acceptance.yaml").read_text(encoding="utf-8"))["recipe"]
    recipe["generate"]["max_new_tokens"] = 8
    todo = check.drawn(cells, 0)
    assert [bool(cell["data_source"]) for cell in todo] == [True, False]
    for ours, cell in zip(check.measured(run, todo), todo, strict=True):
        job = check.job_of(cell, recipe)
        theirs = plain.run(job)
        rates = check.rates(theirs.answers, job, recipe["judges"][0]["phrases"])
        assert set(rates) == {"harm", "over_refusal", "utility"}
        assert check.differences(ours, theirs, rates) == []
        assert len(ours.losses) == (2 if cell["data_source"] else 0)
        other = {**theirs.answers, "harm": ["nothing of the kind", *theirs.answers["harm"][1:]]}
        assert check.differences(ours, replace(theirs, answers=other), rates) == [
            "1 of 40 answers (harm) differ, the first to prompt 1"
        ]
        assert check.differences(ours, theirs, {**rates, "harm": rates["harm"] + 0.025})
        if ours.losses:
            losses = [theirs.losses[0] * 1.0001, *theirs.losses[1:]]
            (said,) = check.differences(ours, replace(theirs, losses=losses), rates)
            assert said.startswith("loss at step 1: ")
