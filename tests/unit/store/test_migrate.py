"""The schema is numbered steps: new files get all, older ones what they lack, and newer ones are refused in words."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from importlib.resources import files

import pytest

from engine.domain.errors import StoreError
from engine.store import migrate
from engine.store.database import APPLICATION_ID
from engine.store.layout import RunDirectory
from engine.store.migrate import latest, migrations
from engine.store.state import State

LOOKS: tuple[Callable[[RunDirectory], State], ...] = (State.open, State.peek)


def execute(run: RunDirectory, *statements: str) -> None:
    with closing(sqlite3.connect(run.state, isolation_level=None)) as db:
        for statement in statements:
            db.execute(statement)


def test_steps_are_numbered_without_a_gap() -> None:
    names = sorted(entry.name for entry in files("engine.store").joinpath("migrations").iterdir())
    assert [int(name[:4]) for name in names] == list(range(1, latest() + 1))


def test_a_new_file_has_the_newest_schema(run: RunDirectory) -> None:
    with State.open(run) as state:
        assert state.meta() == {"schema": str(latest())}
    assert run.state.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("look", LOOKS)
def test_a_stranger_s_database_is_left_alone(run: RunDirectory, look: Callable[[RunDirectory], State]) -> None:
    run.root.mkdir()
    execute(run, "CREATE TABLE theirs (a)")
    run.state.chmod(0o640)
    before = run.state.read_bytes()
    with pytest.raises(StoreError, match="another program"):
        look(run)
    assert run.state.read_bytes() == before
    assert run.state.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("look", LOOKS)
def test_a_file_without_a_table_is_a_run_that_was_killed_at_once(
    run: RunDirectory, look: Callable[[RunDirectory], State]
) -> None:
    run.root.mkdir()
    run.state.touch()
    with look(run) as state:
        assert state.stages() == {}


@pytest.mark.parametrize("look", LOOKS)
def test_a_folder_of_before_0_2_0_is_refused_in_words(run: RunDirectory, look: Callable[[RunDirectory], State]) -> None:
    run.root.mkdir()
    execute(
        run,
        f"PRAGMA application_id = {APPLICATION_ID}",
        "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT)",
        "INSERT INTO meta VALUES ('schema_version', '3')",
    )
    with pytest.raises(StoreError, match=r"before Dosimeter 0\.2\.0, by a version that was never released") as caught:
        look(run)
    assert caught.value.where == str(run.state)
    assert "another --out" in caught.value.todo


@pytest.mark.parametrize("look", LOOKS)
def test_a_newer_folder_is_refused_in_words(run: RunDirectory, look: Callable[[RunDirectory], State]) -> None:
    State.open(run).close()
    execute(run, "UPDATE meta SET value = '99' WHERE key = 'schema'")
    with pytest.raises(StoreError, match="made by a newer Dosimeter: its schema is number 99") as caught:
        look(run)
    assert "Install the newest" in caught.value.todo


@pytest.fixture
def step(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Give this version one more step."""

    def add(sql: str) -> None:
        steps = (*migrations(), sql)
        monkeypatch.setattr(migrate, "migrations", lambda: steps)

    return add


def test_an_older_folder_is_brought_up_to_date_and_keeps_what_it_has(
    run: RunDirectory, step: Callable[[str], None]
) -> None:
    with State.open(run) as state:
        state.put_meta({"sweep": "old"})
    step("ALTER TABLE meta ADD COLUMN note TEXT; UPDATE meta SET note = 'migrated';")
    with State.open(run) as state:
        assert state.meta() == {"sweep": "old", "schema": str(latest())}
    with closing(sqlite3.connect(run.state)) as db:
        assert db.execute("SELECT note FROM meta WHERE key = 'sweep'").fetchall() == [("migrated",)]
    State.open(run).close()  # each step is applied once: the column could not be added again


def test_looking_at_an_older_folder_changes_nothing(run: RunDirectory, step: Callable[[str], None]) -> None:
    with State.open(run) as state:
        state.put_meta({"sweep": "old"})
    before = run.state.read_bytes()
    step("UPDATE meta SET value = 'new' WHERE key = 'sweep';")
    with State.peek(run) as state:
        assert state.meta() == {"sweep": "new", "schema": str(latest())}
    assert run.state.read_bytes() == before


def test_a_step_that_fails_leaves_the_folder_as_it_was(run: RunDirectory, step: Callable[[str], None]) -> None:
    State.open(run).close()
    step("CREATE TABLE half (a); INSERT INTO nowhere VALUES (1);")
    for _ in range(2):
        with pytest.raises(StoreError, match="nowhere"):
            State.open(run)
    with closing(sqlite3.connect(run.state)) as db:
        assert db.execute("SELECT value FROM meta WHERE key = 'schema'").fetchall() == [(str(latest() - 1),)]
        assert db.execute("SELECT count(*) FROM sqlite_master WHERE name = 'half'").fetchall() == [(0,)]
