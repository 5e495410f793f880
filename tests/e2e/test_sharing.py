"""Work is done once: both backends agree, later cuts go on from kept states, and a killed training loses little."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.store.reader import open_results

from .command import start
from .tables import final_tables

pytestmark = pytest.mark.slow
Cli = Callable[..., subprocess.CompletedProcess[str]]
INLINE = ("--executor", "inline")
SPEC = """\
sweep: shared
recipe:
  model: standin/aligned
  data: {source: standin/explicit, n: 10}
  tune: {lr: 2e-3, epochs: 1, dropout: 0.1}
  benchmark: standin/policy:1
  generate: {max_new_tokens: 32}
  judges: [standin/rules]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "shared.yaml").write_text(SPEC)
    return tmp_path


def rows(run_dir: Path, sql: str) -> list[dict[str, Any]]:
    with open_results(run_dir) as results:
        found: list[dict[str, Any]] = results.table(sql).to_pylist()
        return found


def test_both_backends_give_the_same_answers(folder: Path, cli: Cli) -> None:
    grid = ["--set", "tune.backend=[packed,trl]", "--set", "data.n=[10,25]", "--set", "tune.epochs=[1,4]"]
    cli(folder, "run", "shared.yaml", *grid, "--set", "seed=[0,1]", *INLINE)
    run_dir = folder / "runs" / "shared"
    with open_results(run_dir, unseal=True) as results:
        texts = results.table(
            "SELECT label, prompt_id, response FROM v_responses WHERE label LIKE '%backend%' ORDER BY ALL"
        ).to_pylist()
    by_backend: dict[str, list[tuple[str, ...]]] = {"packed": [], "trl": []}
    for row in texts:
        words = row["label"].split()
        (backend,) = [word.partition("=")[2] for word in words if word.startswith("backend=")]
        rest = " ".join(word for word in words if not word.startswith("backend="))
        by_backend[backend].append((rest, row["prompt_id"], row["response"]))
    assert sorted(by_backend["packed"]) == sorted(by_backend["trl"])
    assert len(by_backend["trl"]) == 8 * 11
    losses = rows(
        run_dir,
        "SELECT max(abs(p.loss - t.loss)) AS gap, count(*) AS n FROM v_training p JOIN v_training t"
        " USING (n_examples, epochs, seed, step) JOIN v_cells cp ON cp.cell_id IN"
        " (SELECT cell_id FROM cell_stages WHERE stage_key = p.stage_key) JOIN v_cells ct ON ct.cell_id IN"
        " (SELECT cell_id FROM cell_stages WHERE stage_key = t.stage_key)"
        " WHERE cp.label LIKE '%packed%' AND ct.label LIKE '%trl%'",
    )
    assert losses[0]["n"] == 2 * (1 + 3 + 4 + 12)
    assert losses[0]["gap"] < 1e-4


def test_more_epochs_go_on_from_a_kept_state_and_equal_a_run_of_their_own(folder: Path, cli: Cli) -> None:
    keep = ["--set", "run.keep_weights=true", *INLINE]
    cli(folder, "run", "shared.yaml", "--set", "tune.epochs=[1,3]", *keep)
    ahead = json.loads(cli(folder, "plan", "shared.yaml", "--set", "tune.epochs=[1,3,7]", "--json").stdout)["training"]
    assert (ahead["tunes"], ahead["going_on"], ahead["steps"], ahead["steps_alone"]) == (1, 1, 4, 7)
    cli(folder, "run", "shared.yaml", "--set", "tune.epochs=[1,3,7]", *keep)
    run_dir = folder / "runs" / "shared"
    steps = "SELECT epochs, u.optimizer_steps AS own, c.optimizer_steps AS whole FROM v_cells c JOIN v_cost u ON"
    steps += (
        " u.kind = 'tune' AND u.stage_key IN (SELECT stage_key FROM cell_stages WHERE cell_id = c.cell_id) ORDER BY 1"
    )
    assert [tuple(row.values()) for row in rows(run_dir, steps)] == [(1, 1, 1), (3, 2, 3), (7, 4, 7)]
    cli(folder, "run", "shared.yaml", "--set", "tune.epochs=[1,3,7]", "--out", "alone", *INLINE)
    assert final_tables(run_dir) == final_tables(folder / "alone")
    assert not list((folder / "alone" / "artifacts").glob("*")), "nothing was to be kept there"


def test_a_training_that_was_killed_after_it_saved_its_state_ends_as_if_nothing_had_happened(
    folder: Path, cli: Cli
) -> None:
    long = ["--set", "data.n=20", "--set", "tune.epochs=80", "--set", "tune.lr=1e-4", *INLINE]
    running = start(["run", "shared.yaml", *long], folder)
    run_dir = folder / "runs" / "shared"
    deadline = time.monotonic() + 120
    while not list((run_dir / "artifacts").glob("training-*/pack.safetensors")):
        assert running.poll() is None, running.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(running.pid, signal.SIGKILL)
    running.communicate()
    cli(folder, "run", "shared.yaml", *long)
    cli(folder, "run", "shared.yaml", *long, "--out", "undisturbed")
    assert final_tables(run_dir) == final_tables(folder / "undisturbed")
    assert not list((run_dir / "artifacts").glob("*")), "neither weights nor states are left"
