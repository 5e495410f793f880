"""Killed, interrupted, failing, stopped by its budget, watched: the results are those of an undisturbed run."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest

from engine.domain.errors import StoreError
from engine.store.reader import open_results

from .command import Running, start
from .conftest import TINY
from .tables import final_tables

pytestmark = pytest.mark.slow
Cli = Callable[..., subprocess.CompletedProcess[str]]
INLINE = ("--executor", "inline")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "tiny.yaml").write_text(TINY)
    return tmp_path


def finished_stages(run_dir: Path) -> dict[str, int]:
    """Attempts by stage that is done; empty before the run has begun."""
    if not (run_dir / "state.sqlite").exists():
        return {}
    db = sqlite3.connect(f"{(run_dir / 'state.sqlite').as_uri()}?mode=ro", uri=True)
    try:
        return dict(db.execute("SELECT stage_key, attempts FROM stages WHERE state = 'done'"))
    except sqlite3.OperationalError:  # the tables are just being made
        return {}
    finally:
        db.close()


def wait_for(run_dir: Path, stages: int, running: Running) -> None:
    """Wait until so many stages have finished."""
    deadline = time.monotonic() + 120
    while len(finished_stages(run_dir)) < stages:
        assert running.poll() is None, running.communicate()
        assert time.monotonic() < deadline, "the run made no progress"
        time.sleep(0.02)


def under_way(folder: Path, stages: int, *options: str) -> tuple[Path, Running]:
    """A run of the tiny sweep of which so many stages have finished, and its directory."""
    run_dir = folder / "runs" / "tiny"
    running = start(["run", "tiny.yaml", *options], folder)
    wait_for(run_dir, stages, running)
    return run_dir, running


def descendants(running: Running) -> list[psutil.Process]:
    return [psutil.Process(running.pid), *psutil.Process(running.pid).children(recursive=True)]


def workers_of(running: Running) -> list[psutil.Process]:
    return [process for process in descendants(running) if process.name().startswith("ray::RayWorker")]


def loads_libraries(worker: psutil.Process) -> bool:
    return any("libtorch" in mapped.path for mapped in worker.memory_maps())


def test_one_interrupt_stops_in_order_and_the_same_command_resumes(folder: Path, cli: Cli, undisturbed: Path) -> None:
    run_dir, running = under_way(folder, 5, *INLINE)
    os.killpg(running.pid, signal.SIGINT)  # a terminal tells every process of the command
    _, errors = running.communicate(timeout=60)
    assert running.returncode == 130, errors
    assert "The same command resumes." in errors
    assert "died" not in errors
    db = sqlite3.connect(run_dir / "state.sqlite")
    assert db.execute("SELECT count(*) FROM attempts WHERE state = 'failed'").fetchone() == (0,)
    db.close()
    assert json.loads(cli(folder, "status", "--json").stdout)["phase"] == "interrupted"
    cli(folder, "run", "tiny.yaml", *INLINE)
    assert final_tables(run_dir) == final_tables(undisturbed / "runs" / "tiny")


def test_workers_and_then_the_driver_die_and_only_what_they_were_running_runs_again(
    folder: Path, cli: Cli, undisturbed: Path
) -> None:
    """On Ray: a worker dies while it loads its libraries, another one at work, and at last the command itself."""
    run_dir, running = folder / "runs" / "tiny", start(["run", "tiny.yaml"], folder)
    deadline = time.monotonic() + 60
    while not (loading := [one for one in workers_of(running) if loads_libraries(one)]):
        assert time.monotonic() < deadline, running.communicate()
        time.sleep(0.001)
    loading[0].kill()
    wait_for(run_dir, 5, running)
    listening = {
        connection.laddr.ip
        for process in descendants(running)
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert listening <= {"127.0.0.1", "::ffff:127.0.0.1", "::1"}, "a local Ray must not listen to the network"
    busy = max(workers_of(running), key=lambda process: process.memory_info().rss)  # the third has no model
    early = finished_stages(run_dir)
    busy.kill()
    wait_for(run_dir, 20, running)
    workers = workers_of(running)
    os.kill(running.pid, signal.SIGKILL)
    _, errors = running.communicate()
    assert len(re.findall(r"model-worker-\d died and was replaced", errors)) == 2
    _, alive = psutil.wait_procs(workers, timeout=20)
    assert not alive, "no worker outlives the driver, however it ends"
    before = finished_stages(run_dir)
    assert 20 <= len(before) < 57
    assert {key: before[key] for key in early} == early
    cli(folder, "run", "tiny.yaml", *INLINE)
    after = finished_stages(run_dir)
    assert {key: after[key] for key in before} == before, "a finished stage ran again"
    assert 1 <= sum(attempts > 1 for attempts in after.values()) < len(after) / 2
    assert final_tables(run_dir) == final_tables(undisturbed / "runs" / "tiny")


def test_two_interrupts_stop_the_run_and_lose_nothing_that_had_finished(folder: Path) -> None:
    run_dir, running = under_way(folder, 5, *INLINE)
    before = finished_stages(run_dir)
    os.kill(running.pid, signal.SIGINT)
    time.sleep(0.05)
    os.kill(running.pid, signal.SIGINT)
    _, errors = running.communicate(timeout=30)
    assert running.returncode == 130, errors
    assert before.items() <= finished_stages(run_dir).items()


UNFIT = '[{use: mix, source: "file:long.jsonl", n: 1}]'
"""What mixes in a row that is too long: `plan` does not look at what mitigations add."""


def write_unfit_row(folder: Path) -> None:
    row = {
        "messages": [{"role": "user", "content": "repeat: " + "plum " * 600}, {"role": "assistant", "content": "no"}]
    }
    (folder / "long.jsonl").write_text(json.dumps(row) + "\n")


def test_a_failed_stage_is_a_row_and_the_others_finish(folder: Path, cli: Cli) -> None:
    write_unfit_row(folder)
    changes = ["--set", f"mitigations=[[], {UNFIT}]", "--set", "data.n=1", "--set", "tune.epochs=1"]
    done = cli(folder, "run", "tiny.yaml", *changes, "--executor", "inline", code=3)
    assert "max_length" in done.stderr
    rows = json.loads(
        cli(
            folder,
            "query",
            "--json",
            "--sql",
            "select status, count(*) as cells, count(harmfulness_rate) as measured from v_cells"
            " group by all order by all",
        ).stdout
    )
    assert rows == [
        {"status": "done", "cells": 3, "measured": 3},
        {"status": "failed", "cells": 2, "measured": 0},
    ]
    problems = cli(folder, "query", "problems").stdout
    assert "ValueError" in problems
    assert "skipped" in problems


def test_fail_fast_starts_nothing_after_a_failure(folder: Path, cli: Cli) -> None:
    write_unfit_row(folder)
    unfit = ["--set", f"mitigations={UNFIT}", "--set", "data.n=1", "--executor", "inline", "--fail-fast"]
    unfit += ["--set", "tune.batch_size=[1,2]"]  # those cannot be in one bundle, and one bundle would be finished
    done = cli(folder, "run", "tiny.yaml", *unfit, code=3)
    assert "--fail-fast" in done.stderr
    assert "pending" in cli(folder, "status").stdout


def test_the_budget_stops_the_run_and_a_higher_one_resumes_it(folder: Path, cli: Cli, undisturbed: Path) -> None:
    run_dir = folder / "runs" / "tiny"
    tight = ["run", "tiny.yaml", "--executor", "inline", "--set", "run.budget.tokens=9000"]
    done = cli(folder, *tight, code=4)
    assert "over the cap of 9000 tokens" in done.stderr
    assert 0 < len(finished_stages(run_dir)) < 60
    with open_results(run_dir) as results:
        (spent,) = results.table(
            "SELECT sum(train_tokens + prompt_tokens + generated_tokens) AS tokens FROM v_cost"
        ).to_pylist()
    assert spent["tokens"] <= 9000
    cli(folder, "run", "tiny.yaml", "--executor", "inline")
    assert final_tables(run_dir) == final_tables(undisturbed / "runs" / "tiny")


def test_readers_and_a_second_runner_meet_a_run_without_harm(folder: Path, cli: Cli) -> None:
    run_dir = folder / "runs" / "tiny"
    running = start(["run", "tiny.yaml", "--executor", "inline", "--set", "tune.epochs=[1,20]"], folder)
    seen = []
    wait_for(run_dir, 1, running)
    assert "another process is running this sweep" in cli(folder, "run", "tiny.yaml", code=5).stderr
    assert json.loads(cli(folder, "status", "--json").stdout)["phase"] == "running"
    while running.poll() is None:
        with open_results(run_dir) as results:
            seen.append(results.table("SELECT count(*) AS n FROM v_cells WHERE status = 'done'").to_pylist()[0]["n"])
        time.sleep(0.05)
    assert running.returncode == 0, running.communicate()
    running.communicate()
    assert seen == sorted(seen)


def test_a_damaged_shard_is_found_and_its_stages_run_again(undisturbed: Path, cli: Cli, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-r", str(undisturbed), str(copy)], check=True)
    run_dir = copy / "runs" / "tiny"
    shard = min((run_dir / "shards" / "verdicts").iterdir())
    stages = pq.read_table(shard).column("stage_key").unique()
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 0xFF
    shard.write_bytes(bytes(data))
    done = cli(copy, "run", "tiny.yaml", "--executor", "inline")
    assert re.search(rf"^{len(stages)} finished stages? ha(s|ve) damaged files", done.stderr, re.MULTILINE)
    assert f"complete: {len(stages)} stage" in done.stderr
    assert final_tables(run_dir) == final_tables(undisturbed / "runs" / "tiny")


def test_a_kill_just_before_the_last_publication_is_made_good(undisturbed: Path, cli: Cli, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-r", str(undisturbed), str(copy)], check=True)
    run_dir = copy / "runs" / "tiny"
    before = final_tables(run_dir)
    db = sqlite3.connect(run_dir / "state.sqlite")
    db.execute("DELETE FROM meta WHERE key = 'published'")  # as a kill leaves it, between the commit and the move
    db.commit()
    db.close()
    (run_dir / "results.duckdb").write_bytes(b"what an earlier publication left")
    assert "Nothing to do" in cli(copy, "run", "tiny.yaml").stderr
    assert final_tables(run_dir) == before


def test_nobody_else_s_folder_is_touched(folder: Path, cli: Cli) -> None:
    theirs = folder / "theirs"
    (theirs / "artifacts" / "precious").mkdir(parents=True)
    (theirs / "spec.yaml").write_text("mine")
    assert "is no run directory" in cli(folder, "run", "tiny.yaml", "--out", "theirs", code=5).stderr
    assert (theirs / "spec.yaml").read_text() == "mine"
    assert sorted(path.name for path in theirs.iterdir()) == ["artifacts", "spec.yaml"]
    assert "would be a file" in cli(folder, "run", "tiny.yaml", "--out", "tiny.yaml", code=5).stderr


def test_what_is_not_a_run_directory_is_said_to_be_none(tmp_path: Path, cli: Cli) -> None:
    assert "not a run directory" in cli(tmp_path, "status", "--run", str(tmp_path), code=5).stderr
    assert "no run here yet" in cli(tmp_path, "query", "cells", code=2).stderr
    with pytest.raises(StoreError):
        open_results(tmp_path)
