"""Ctrl-C in the middle of a long stage: it stops at the next step, and the same command goes on from there."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from .command import Cli, Running, start
from .tables import final_tables

pytestmark = pytest.mark.slow

LONG = """\
sweep: long
recipe:
  model: standin/aligned
  data: {source: standin/explicit, n: 12}
  tune: {backend: trl, batch_size: 4, epochs: 50, lr: 2e-3, dropout: 0.1}
  benchmark: standin/policy:1
  generate: {max_new_tokens: 8}
  judges: [standin/rules]
run: {resources: {hosts: 1}}
"""
STEPS = 50 * 3
PROMPT = 15.0
"""Seconds in which a run that is told to stop has ended."""


def rows(run_dir: Path, query: str) -> list[tuple[object, ...]]:
    if not (run_dir / "state.sqlite").exists():
        return []
    with closing(sqlite3.connect(f"{(run_dir / 'state.sqlite').as_uri()}?mode=ro", uri=True)) as db:
        try:
            return db.execute(query).fetchall()
        except sqlite3.OperationalError:  # the tables are just being made
            return []


def share_trained(run_dir: Path) -> float:
    """What the run says that it has done of its training."""
    for (beat,) in rows(run_dir, "SELECT value FROM meta WHERE key = 'heartbeat'"):
        kind, share = json.loads(str(beat)).get("longest") or ("", 0.0)
        return float(share) if kind == "tune" else 0.0
    return 0.0


def stopped(folder: Path, run_dir: Path, beyond: float, *options: str) -> tuple[int, str]:
    """Run until so much of the training is done, press Ctrl-C once, and return the step whose state is kept, and what was said."""
    running: Running = start(["run", "long.yaml", "--out", str(run_dir), *options], folder)
    deadline = time.monotonic() + 120
    while share_trained(run_dir) <= beyond:
        assert running.poll() is None, running.communicate()
        assert time.monotonic() < deadline, "it does not say how far it is"
        time.sleep(0.02)
    pressed = time.monotonic()
    os.killpg(running.pid, signal.SIGINT)  # a terminal tells every process of the command
    _, errors = running.communicate(timeout=60)
    assert running.returncode == 130, errors
    assert time.monotonic() - pressed < PROMPT, errors
    assert "died" not in errors
    (state,) = run_dir.rglob("at-*")
    return int(state.name.removeprefix("at-")), errors


def test_a_long_stage_stops_at_its_next_step_and_goes_on_from_there(tmp_path: Path, cli: Cli) -> None:
    """On Ray, then in this process."""
    (tmp_path / "long.yaml").write_text(LONG)
    run_dir, undisturbed = tmp_path / "run", tmp_path / "undisturbed"
    first, said = stopped(tmp_path, run_dir, 0.05)
    assert "stopping at the next step" in said
    told = json.loads(cli(tmp_path, "status", "--json", "--run", str(run_dir)).stdout)
    assert (told["phase"], told["longest"], told["failures"]) == ("interrupted", None, [])
    second, _ = stopped(tmp_path, run_dir, first / STEPS + 0.05, "--executor", "inline")
    assert 0 < first < second < STEPS
    cli(tmp_path, "run", "long.yaml", "--out", str(run_dir), "--executor", "inline")
    tried = "SELECT attempts.state, optimizer_steps, device_seconds > 0 FROM attempts JOIN stages USING (stage_key)"
    assert rows(run_dir, f"{tried} WHERE kind = 'tune' ORDER BY attempt") == [
        ("interrupted", 0, 1),
        ("interrupted", 0, 1),
        ("done", STEPS, 1),
    ]
    cli(tmp_path, "run", "long.yaml", "--out", str(undisturbed), "--executor", "inline")
    assert final_tables(run_dir) == final_tables(undisturbed)
