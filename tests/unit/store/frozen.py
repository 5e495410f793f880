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

from engine.store.artifacts import RECORD
from engine.store.layout import RunDirectory, sha256_of
from engine.store.publish import publish
from engine.store.reader import open_results

KEPT = Path(__file__).parents[2] / "golden" / "runs"
ANEW = (
    "results.duckdb",
    "report",
    "lock",
    ".*.lock",
    "training-*",
    ".publishing",
    "state.sqlite-wal",
    "state.sqlite-shm",
)
HERE = f"{Path(__file__).parents[3]}/"
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
    _forget_where(RunDirectory(place / "run"))
    (place / "expected.json").write_text(json.dumps(shown(run)) + "\n", encoding="utf-8")


def _forget_where(run: RunDirectory) -> None:
    """Take the place of this repository out of what is kept: of tracebacks, and of adapters' configurations."""
    with closing(sqlite3.connect(run.state, isolation_level=None)) as db:
        db.execute("UPDATE attempts SET traceback = replace(traceback, ?, '')", (HERE,))
        db.execute("VACUUM")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    for path in run.artifacts.glob("*/adapter_config.json"):
        path.write_text(path.read_text(encoding="utf-8").replace(HERE, ""), encoding="utf-8")
        record = json.loads(path.with_name(RECORD).read_text(encoding="utf-8"))
        record["files"][path.name] = {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
        path.with_name(RECORD).write_text(json.dumps(record, indent=1, ensure_ascii=False), encoding="utf-8")


def take_out(place: Path, into: Path) -> tuple[RunDirectory, dict[str, list[dict[str, object]]]]:
    """Copy a kept run to where it can be worked on, and return it with what its views showed."""
    shutil.copytree(place / "run", into)
    expected: dict[str, list[dict[str, object]]] = json.loads((place / "expected.json").read_text(encoding="utf-8"))
    return RunDirectory(into), expected
