"""Publishing while a run goes on: it happens, and its trouble never stops the run."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.run.drive import publisher
from engine.run.drive.publisher import Publisher
from engine.store.layout import RunDirectory
from engine.store.state import State


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunDirectory:
    monkeypatch.setattr(publisher, "SECONDS_BETWEEN", 0.0)
    return RunDirectory(tmp_path / "run")


def test_it_publishes_when_it_is_due(run: RunDirectory) -> None:
    State.open(run).close()
    due = Publisher(run)
    assert due.tick() == ""
    due.join()
    assert run.results.is_file()


def test_trouble_is_told_once_and_tried_again(run: RunDirectory) -> None:
    due = Publisher(run)  # there is no state.sqlite yet
    due.tick()
    due.join()
    State.open(run).close()
    assert "cannot be published" in due.tick()
    due.join()
    assert due.tick() == ""
    due.join()
    assert run.results.is_file()
