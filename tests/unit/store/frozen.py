"""Run folders of released versions, kept in `tests/golden/runs/<version>`: how one is kept, and how it is taken out again.

A kept folder is what `dosimeter run` left, without what is made anew (the published results, the report, the lock). Beside
it, `expected.json` has what its views showed then.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from engine.store.layout import RunDirectory
from engine.store.publish import publish
from engine.store.reader import open_results

KEPT = Path(__file__).parents[2] / "golden" / "runs"
ANEW = ("results.duckdb", "report", "lock", ".publishing", "state.sqlite-wal", "state.sqlite-shm")
SHOWN = {
    "v_meta": "SELECT * FROM v_meta WHERE key IN ('sweep', 'spec_sha256', 'complete', 'standin', 'ending') ORDER BY key",
    "v_cells": "FROM v_cells ORDER BY position",
    "v_settings": "FROM v_settings ORDER BY cell_id, path",
    "v_mitigations": "FROM v_mitigations ORDER BY cell_id, position",
    "v_scores": "FROM v_scores ORDER BY cell_id, judge, prompt_id, sample",
    "v_pairs": "FROM v_pairs ORDER BY position, pairing",
    "v_cost": "FROM v_cost ORDER BY stage_key",
    "v_stages": "FROM v_stages ORDER BY stage_key",
    "v_pins": "FROM v_pins ORDER BY kind, ref",
}


def shown(run: RunDirectory) -> dict[str, list[dict[str, object]]]:
    """What the views of a published run show, as JSON has it."""
    with open_results(run.root) as results:
        found = {view: results.table(sql).to_pylist() for view, sql in SHOWN.items()}
    plain: dict[str, list[dict[str, object]]] = json.loads(json.dumps(found, default=str))
    return plain


def keep(run: RunDirectory, place: Path) -> None:
    """Keep a run that nothing drives now, and what its views show.

    Args:
        run: The run directory.
        place: Where it is kept; it does not exist yet.
    """
    publish(run)
    with closing(sqlite3.connect(run.state)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    place.mkdir(parents=True)
    shutil.copytree(run.root, place / "run", ignore=shutil.ignore_patterns(*ANEW))
    (place / "expected.json").write_text(json.dumps(shown(run), indent=1) + "\n", encoding="utf-8")


def take_out(place: Path, into: Path) -> tuple[RunDirectory, dict[str, list[dict[str, object]]]]:
    """Copy a kept run to where it can be worked on, and return it with what its views showed."""
    shutil.copytree(place / "run", into)
    expected: dict[str, list[dict[str, object]]] = json.loads((place / "expected.json").read_text(encoding="utf-8"))
    return RunDirectory(into), expected
