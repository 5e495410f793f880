"""Files that are really damaged, disks that are really full, folders that are really read-only: errors in words, and exit 5."""

from __future__ import annotations

import multiprocessing
import os
import random
import resource
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from engine.cli.main import Exit, run_cli
from engine.domain.errors import QueryError, StoreError
from engine.domain.plan import Plan
from engine.domain.results import Finish, Response
from engine.store import artifacts, shards
from engine.store.layout import RunDirectory, write_text
from engine.store.publish import publish, refresh
from engine.store.reader import open_results
from engine.store.state import State

NOBODY = 65534
PAGE = 4096


@pytest.fixture(scope="module")
def plan(make: Any) -> Plan:
    return make.plan(*(make.recipe(seed=seed) for seed in range(4)), make.recipe(mitigations=(make.filter,)))


def fill(run: RunDirectory, plan: Plan, make: Any) -> RunDirectory:
    """A run with all stages done, and published."""
    with State.open(run) as state:
        state.adopt(plan)
        for key, stage in plan.stages.items():
            if stage.kind.value == "generate":
                responses = [Response(f"p{at}", 0, f"text {at}" * 99, Finish.STOP, 5, 3) for at in range(99)]
                rows = shards.response_rows(key, responses)
                state.settle([make.done(key, shards.write_shard(run, "responses", key, rows))])
            else:
                state.settle([make.done(key)])
        refresh(run, state)
    return run


@pytest.fixture(scope="module")
def whole(plan: Plan, make: Any, tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    return fill(RunDirectory(tmp_path_factory.mktemp("whole") / "run"), plan, make)


@pytest.fixture
def filled(whole: RunDirectory, run: RunDirectory) -> RunDirectory:
    shutil.copytree(whole.root, run.root)
    return run


def damaged(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Damage a file in many ways: pages overwritten with noise and with nothing, bits flipped, ends cut off."""
    noise = random.Random(7)  # noqa: S311 - no secret
    for at in range(0, len(data), PAGE):
        yield f"noise at {at}", data[:at] + noise.randbytes(PAGE) + data[at + PAGE :]
        yield f"nothing at {at}", data[:at] + bytes(PAGE) + data[at + PAGE :]
    for size in (0, 1, 100, PAGE, len(data) // 2, len(data) - PAGE, len(data) - 1):
        yield f"cut to {size}", data[:size]
    for _ in range(100):
        at = noise.randrange(len(data))
        yield f"flip at {at}", data[:at] + bytes([data[at] ^ 1 << noise.randrange(8)]) + data[at + 1 :]


def looks(state: State) -> None:
    for look in (
        state.meta,
        state.stages,
        state.payloads,
        state.shards,
        state.usage,
        state.known,
        state.charges,
        state.times,
        state.planned_counts,
        state.cell_counts,
        state.device_seconds_by_stage,
        state.digest,
        lambda: state.failures(9),
    ):
        look()


def test_damage_of_the_control_plane_is_a_store_error_or_harmless(filled: RunDirectory, plan: Plan) -> None:
    key = next(iter(plan.stages))
    met: list[tuple[str, StoreError]] = []
    for how, data in damaged(filled.state.read_bytes()):
        for end in ("-wal", "-shm"):
            filled.state.with_name(f"{filled.state.name}{end}").unlink(missing_ok=True)
        filled.state.write_bytes(data)
        try:
            with State.peek(filled) as state:
                looks(state)
            with State.open(filled) as state:
                state.reset([key])
                state.adopt(plan)
        except StoreError as error:
            met.append((how, error))
    assert len(met) > 50
    for how, error in met:
        assert error.where == str(filled.state), how
        assert error.todo, how


def test_a_damaged_control_plane_ends_a_verb_with_exit_5(
    filled: RunDirectory, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli(["status", "--run", str(filled.root)]) == Exit.OK
    data = filled.state.read_bytes()
    filled.state.write_bytes(data[: 2 * PAGE] + b"\xff" * (len(data) - 2 * PAGE))
    assert run_cli(["status", "--run", str(filled.root)]) == Exit.STORE
    said = capsys.readouterr().err
    assert "the control plane cannot be read" in said
    assert "backup" in said


def test_damaged_results_are_a_store_error_or_harmless(filled: RunDirectory) -> None:
    met: list[tuple[str, StoreError]] = []
    ways = list(damaged(filled.results.read_bytes()))
    for how, data in random.Random(3).sample(ways, 8):  # noqa: S311 - no secret
        filled.results.write_bytes(data)
        try:
            with open_results(filled.root) as results:
                for table in ("v_meta", "v_pins", "cells", "cell_settings", "stages", "attempts", "responses"):
                    results.table(f"FROM {table}")
        except StoreError as error:
            met.append((how, error))
    assert met
    for how, error in met:
        assert error.where == str(filled.results), how
        assert "dosimeter run" in error.todo, how


def test_damaged_results_are_published_anew_and_whole_ones_are_left(filled: RunDirectory) -> None:
    data = filled.results.read_bytes()
    for harm in (data[: len(data) // 2], b"", None):
        if harm is None:
            filled.results.unlink()
        else:
            filled.results.write_bytes(harm)
        with State.open(filled) as state:
            refresh(filled, state)
        with open_results(filled.root) as results:
            assert results.table("SELECT count(*) AS n FROM v_cells").to_pylist() == [{"n": 6}]
    before = filled.results.stat()
    with State.open(filled) as state:
        refresh(filled, state)
    assert filled.results.stat().st_ino == before.st_ino, "nothing has changed"


def test_a_damaged_shard_is_named_and_the_old_results_stay(filled: RunDirectory) -> None:
    (shard, *_) = (filled.shards / "responses").glob("*.parquet")
    shard.write_bytes(shard.read_bytes()[:-99])
    before = filled.results.read_bytes()
    with pytest.raises(StoreError, match=r"cannot be published.*parquet") as caught:
        publish(filled)
    assert "makes damaged ones again" in caught.value.todo
    assert filled.results.read_bytes() == before
    assert not filled.publishing.exists()


def test_results_that_another_program_holds_are_not_to_be_deleted(filled: RunDirectory) -> None:
    holder = [sys.executable, str(Path(__file__).with_name("holder.py")), str(filled.results)]
    with subprocess.Popen(holder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdin is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(StoreError, match="lock") as caught:
            open_results(filled.root)
        other.stdin.close()
    assert "Another program holds the file open" in caught.value.todo
    assert "elete" not in str(caught.value)


def test_results_of_other_views_are_refused_in_words(sweeps: Any, tmp_path: Path) -> None:
    run = sweeps.Study(views="0", engine_version="0.1.9").write(tmp_path / "run")
    with pytest.raises(StoreError, match=r"another Dosimeter \(0\.1\.9\)") as caught:
        open_results(run)
    assert "dosimeter run" in caught.value.todo


def test_a_wrong_query_is_not_damage(filled: RunDirectory) -> None:
    with open_results(filled.root) as results, pytest.raises(QueryError):
        results.table("SELECT error('IO Error: Could not read')")


@contextmanager
def full_disk(size: int) -> Iterator[None]:
    """Let no file grow beyond `size` bytes: the system then refuses to write, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_stops_a_publication_and_leaves_the_old_file(filled: RunDirectory) -> None:
    before = filled.results.read_bytes()
    for size in (64 * 1024, len(before) // 2):
        with full_disk(size), pytest.raises(StoreError, match="cannot be published") as caught:
            publish(filled)
        assert "Make room on the disk" in caught.value.todo
        assert filled.results.read_bytes() == before
        assert not filled.publishing.exists()
    publish(filled)


def test_a_full_disk_stops_a_commit_and_loses_nothing_that_was_committed(filled: RunDirectory, make: Any) -> None:
    with State.open(filled) as state:
        before = state.digest()
        with full_disk(0), pytest.raises(StoreError, match="cannot be written") as caught:
            state.adopt(make.plan(make.recipe(seed=99)))
        assert "disk" in caught.value.todo
        assert state.digest() == before
        state.adopt(make.plan(make.recipe(seed=99)))
        assert state.digest() != before


def test_a_full_disk_stops_a_worker_s_files_and_leaves_no_part_of_them(run: RunDirectory) -> None:
    folder = artifacts.scratch(run, "tune-1")
    (folder / "w").write_bytes(b"x" * 99)
    with full_disk(10):
        for write in (
            lambda: shards.write_shard(run, "samples", "s", shards.sample_rows("s", [("a", "1", "p")])),
            lambda: write_text(run.root / "plan.json", "x" * 99),
            lambda: artifacts.keep(run, "tune-1", folder, "{}"),
        ):
            with pytest.raises(StoreError) as caught:
                write()
            assert "Make room on the disk" in caught.value.todo
    left = {path.name for path in run.root.rglob("*") if path.is_file()}
    assert left == {"w"}


@contextmanager
def unprivileged() -> Iterator[None]:
    """Be a user who may not write everywhere, where the tests run as root."""
    if os.geteuid():
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def read_only(whole: RunDirectory) -> Iterator[RunDirectory]:
    """A copy of a run that its owner may only read; not below pytest's folder, which is root's alone."""
    top = Path(tempfile.mkdtemp(prefix="dosimeter-test-"))
    run = RunDirectory(top / "run")
    shutil.copytree(whole.root, run.root)
    (run.root / "lock").touch()
    if not os.geteuid():
        for path in (top, *top.rglob("*")):
            os.chown(path, NOBODY, -1)
    run.root.chmod(0o500)
    yield run
    run.root.chmod(0o700)
    shutil.rmtree(top)


def test_a_run_can_be_looked_at_where_nothing_may_be_written(read_only: RunDirectory, whole: RunDirectory) -> None:
    with State.peek(whole) as state:
        digest = state.digest()
    assert run_cli(["status", "--run", str(whole.root)]) == Exit.OK  # imports what nobody else may read
    with unprivileged():
        with pytest.raises(OSError, match="denied"):
            (read_only.root / "x").touch()
        with State.peek(read_only) as state:
            assert state.digest() == digest
        with open_results(read_only.root) as results:
            assert results.table("FROM v_cells").num_rows == 6
        assert run_cli(["status", "--run", str(read_only.root)]) == Exit.OK
        with pytest.raises(StoreError, match="cannot be opened") as caught:
            State.open(read_only)
    assert "writable" in caught.value.todo or "permissions" in caught.value.todo


def test_what_a_killed_driver_had_committed_is_seen_where_nothing_may_be_written(read_only: RunDirectory) -> None:
    """A write-ahead log was left beside the file, as after a kill, and the index of the log is gone, as in a copy."""
    copy = read_only.root.parent / "copy.sqlite"
    shutil.copyfile(read_only.state, copy)
    with closing(sqlite3.connect(copy, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA wal_autocheckpoint = 0")
        db.execute("INSERT INTO meta (key, value) VALUES ('late', 'yes')")
        read_only.root.chmod(0o700)
        log = read_only.state.with_name(f"{read_only.state.name}-wal")
        shutil.copyfile(copy, read_only.state)
        shutil.copyfile(copy.with_name(f"{copy.name}-wal"), log)
    if not os.geteuid():
        os.chown(log, NOBODY, -1)
    read_only.root.chmod(0o500)
    with unprivileged(), State.peek(read_only) as state:
        assert state.meta()["late"] == "yes"
    assert log.exists()


def test_what_cannot_be_read_at_all_is_a_store_error(read_only: RunDirectory) -> None:
    read_only.state.chmod(0)
    with unprivileged(), pytest.raises(StoreError, match="cannot be read") as caught:
        State.peek(read_only)
    assert "permissions" in caught.value.todo


def test_nothing_of_a_killed_publication_stays_or_was_open_to_others(filled: RunDirectory) -> None:
    spawn = multiprocessing.get_context("spawn")
    for _ in range(20):
        child = spawn.Process(target=publish, args=(filled,))
        child.start()
        while child.is_alive() and not any(filled.publishing.glob("*")):
            time.sleep(0.001)
        child.kill()
        child.join()
        if filled.publishing.exists():
            break
    assert any(filled.publishing.iterdir()), "it was killed at work"
    assert filled.publishing.stat().st_mode & 0o777 == 0o700, "nobody else can reach what is in it"
    publish(filled)
    assert not [path.name for path in filled.root.iterdir() if path.name.startswith(".")]
    assert filled.results.stat().st_mode & 0o777 == 0o600
