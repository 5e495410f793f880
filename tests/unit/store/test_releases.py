"""A run folder of every released version opens, and shows what it showed then."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine.cli.main import Exit, run_cli
from engine.domain.results import Finish, Outcome, Response, Verdict
from engine.domain.stage import StageKind
from engine.store import shards
from engine.store.layout import RunDirectory
from engine.store.migrate import latest
from engine.store.publish import refresh
from engine.store.state import State

from .frozen import KEPT, keep, shown, take_out

ANSWER = Response("p", 0, "text", Finish.STOP, 5, 3)


@pytest.fixture
def of_today(make: Any, run: RunDirectory, tmp_path: Path) -> Path:
    """A run of today's version, kept."""
    plan = make.plan(make.recipe(), make.recipe(mitigations=(make.use("scale", a=0.5), make.filter)))
    with State.open(run) as state:
        state.adopt(plan, {next(iter(plan.stages)): "lab"})
        state.put_meta({"sweep": "kept", "ending": "complete"})
        for key, stage in plan.stages.items():
            rows = shards.verdict_rows(key, [ANSWER], [Verdict(Outcome.SCORED, 1.0, "because")])
            refs = [shards.write_shard(run, "verdicts", key, rows)] if stage.kind is StageKind.JUDGE else []
            state.settle([make.done(key, *refs)])
    (run.root / "lock").touch()
    keep(run, tmp_path / "kept")
    return tmp_path / "kept"


def holds(place: Path, into: Path) -> None:
    run, expected = take_out(place, into)
    with State.open(run) as state:
        assert state.meta()["schema"] == str(latest())
        refresh(run, state)
    found = shown(run)
    for view, rows in expected.items():
        same = [{name: row[name] for name in old} for row, old in zip(found[view], rows, strict=True)]
        assert same == rows, view


def test_a_run_of_today_is_kept_and_taken_out_as_it_was(of_today: Path, tmp_path: Path) -> None:
    assert not (of_today / "run" / "lock").exists()
    holds(of_today, tmp_path / "taken out")


def test_what_is_lost_is_seen(of_today: Path, tmp_path: Path) -> None:
    for shard in (of_today / "run" / "shards" / "verdicts").iterdir():
        rows = shards.verdict_rows("judge-other", [], [])
        other = shards.write_shard(RunDirectory(tmp_path), "verdicts", "other", rows)
        shard.write_bytes((tmp_path / other.path).read_bytes())
    with pytest.raises(AssertionError, match="v_cells"):
        holds(of_today, tmp_path / "taken out")


@pytest.mark.parametrize("place", sorted(KEPT.glob("*")), ids=lambda place: place.name)
def test_every_released_version_opens_and_shows_what_it_showed(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / place.name
    holds(place, run)
    for verb in (["status"], ["query", "cells"], ["query", "problems"], ["report"]):
        assert run_cli([*verb, "--run", str(run)]) == Exit.OK
    said = capsys.readouterr().out
    assert "1 failed, 1 blocked by the provider" in said
    assert "wrote " in said
