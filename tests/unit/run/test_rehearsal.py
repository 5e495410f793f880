"""Where a rehearsal goes on: nothing that is complete, driven now, or no rehearsal is touched."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from engine.domain.errors import RunLockedError, StoreError
from engine.run.drive import lock
from engine.run.drive.order import Ending
from engine.run.drive.rehearsal import going_on, make_room
from engine.store.layout import RunDirectory
from engine.store.state import State


def rehearsed(root: Path, ending: str, rehearsal: str = "true") -> RunDirectory:
    """A run directory as a rehearsal leaves it."""
    run = RunDirectory(root)
    make_room(run)
    with closing(State.open(run)) as state:
        state.put_meta({"sweep": "s", "rehearsal": rehearsal, "ending": ending})
    return run


def test_the_newest_that_is_not_complete_goes_on_or_else_a_new_one_begins(tmp_path: Path) -> None:
    first, second, third = (tmp_path / name for name in ("s-rehearsal", "s-rehearsal-2", "s-rehearsal-3"))
    assert going_on(first) == first
    rehearsed(first, Ending.COMPLETE)
    assert going_on(first) == second
    stopped = rehearsed(second, Ending.BUDGET)
    assert going_on(first) == second
    killed = rehearsed(third, "")
    assert going_on(first) == third
    with lock.held(killed):
        assert going_on(first) == second
    killed.state.write_bytes(b"no database")
    assert going_on(first) == second
    stopped.rehearsal.rmdir()  # of a version whose servers kept nothing
    assert going_on(first) == tmp_path / "s-rehearsal-4"


def test_servers_get_no_room_where_something_else_is(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "mine")
    make_room(run)
    assert run.rehearsal.stat().st_mode & 0o777 == 0o700
    make_room(run)  # which is no run directory yet, and no stranger's either
    with lock.held(run), pytest.raises(RunLockedError):
        make_room(run)
    real = rehearsed(tmp_path / "real", Ending.COMPLETE, "false")
    real.rehearsal.rmdir()
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "one.txt").touch()
    for root, said in ((real.root, "are real"), (tmp_path / "thesis", "one.txt")):
        with pytest.raises(StoreError, match=said):
            make_room(RunDirectory(root))
        assert not RunDirectory(root).rehearsal.exists()
