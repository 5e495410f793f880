"""results.duckdb, rebuilt beside the old one from what was acknowledged, and moved into place.

The file that people open is never the file that the engine writes: an open notebook blocks no run, and a run blocks
no notebook. It holds no model text.
"""

from __future__ import annotations

import os
import sqlite3
import time
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import metadata, resources

import duckdb
import pyarrow as pa

from engine.store.layout import SEALED, RunDirectory, sync
from engine.store.state import read_only_uri

STORAGE_VERSION = "v1.4.0"
"""DuckDB 1.4 and later can read the file."""

CONTROL_TABLES = ("cells", "evaluations", "judgements", "cell_stages", "pins")
SHARD_TABLES = ("prompts", "responses", "verdicts", "training", "samples")
STAGE_COLUMNS = "stage_key, kind, adapter, account, revision, state, reason, attempts, settings"
ATTEMPTS = """
WITH RECURSIVE shown (stage_key) AS (
    SELECT stage_key FROM stages WHERE planned
    UNION SELECT a.after_key FROM attempts a JOIN shown USING (stage_key) WHERE a.after_key IS NOT NULL)
SELECT a.* FROM attempts a JOIN shown USING (stage_key)
"""
"""Attempts of the plan's stages, and of the earlier cuts that they went on from: a dose costs all of its steps."""

VERSIONED = ("duckdb", "ray", "torch", "transformers", "peft", "trl")


def publish(run: RunDirectory) -> float:
    """Rebuild results.duckdb from state.sqlite and the acknowledged shards.

    Args:
        run: The run directory.

    Returns:
        The seconds that it took.
    """
    begun = time.monotonic()
    temporary = run.results.with_name(f".results-{uuid.uuid4().hex[:8]}.duckdb.tmp")
    state = sqlite3.connect(read_only_uri(run), uri=True)
    try:
        _build(run, temporary, state)
        temporary.chmod(SEALED)
        sync(temporary)
        temporary.replace(run.results)
        sync(run.root)
    finally:
        state.close()
        temporary.unlink(missing_ok=True)
    return time.monotonic() - begun


def _build(run: RunDirectory, path: os.PathLike[str], state: sqlite3.Connection) -> None:
    state.execute("BEGIN")  # one snapshot of the control plane
    with duckdb.connect(config={"threads": 1}) as db:
        db.execute(f"ATTACH '{_quoted(path)}' AS results (STORAGE_VERSION '{STORAGE_VERSION}')")
        db.execute("USE results")
        for script in ("tables.sql", "views.sql"):
            db.execute(resources.files("engine.store").joinpath(script).read_text())
        db.execute("BEGIN")
        _copy_control(db, state)
        _copy_shards(run, db, state)
        _insert(db, "meta", _facts(state).items())
        db.execute("COMMIT")
        db.execute("CHECKPOINT results")
        db.execute("USE memory")
        db.execute("DETACH results")


def _copy_control(db: duckdb.DuckDBPyConnection, state: sqlite3.Connection) -> None:
    for table in CONTROL_TABLES:
        _insert(db, table, state.execute(f"SELECT * FROM {table}"))  # noqa: S608 - our own names
    _insert(db, "stages", state.execute(f"SELECT {STAGE_COLUMNS} FROM stages WHERE planned"))  # noqa: S608
    _insert(db, "attempts", state.execute(ATTEMPTS))


def _copy_shards(run: RunDirectory, db: duckdb.DuckDBPyConnection, state: sqlite3.Connection) -> None:
    """Copy the rows of acknowledged stages; a file may also hold rows of stages that have to run again."""
    for table in SHARD_TABLES:
        found = state.execute(
            "SELECT path, stage_key FROM shards LEFT JOIN stages USING (stage_key)"
            " WHERE table_name = ? AND coalesce(planned, 1) ORDER BY path",
            (table,),
        ).fetchall()
        if not found:
            continue
        files = [str(run.root / path) for path, _ in found]
        names = _columns(db, table)
        columns = ", ".join(f'"{name}"' for name in names)
        known = {"filename": files} | ({"stage_key": [key for _, key in found]} if "stage_key" in names else {})
        db.register("known", pa.table(known))
        db.execute(
            f"INSERT INTO {table} SELECT {columns} FROM read_parquet(?, filename = true)"  # noqa: S608 - our own names
            f" SEMI JOIN known USING ({', '.join(known)})",
            [sorted(set(files))],
        )
        db.unregister("known")


def _insert(db: duckdb.DuckDBPyConnection, table: str, rows: object) -> None:
    """Insert Python rows by way of Arrow, letting DuckDB cast text to the columns' types."""
    fetched = list(rows)  # type: ignore[call-overload]
    if not fetched:
        return
    names = _columns(db, table)
    columns = [pa.array(values) for values in zip(*fetched, strict=True)]
    db.register("incoming", pa.table(columns, names=names))
    casts = ", ".join(
        f"make_timestamp(CAST(round({name} * 1e6) AS BIGINT)) AS {name}" if name.endswith("_at") else f'"{name}"'
        for name in names
    )
    db.execute(f"INSERT INTO {table} SELECT {casts} FROM incoming")  # noqa: S608 - our own names
    db.unregister("incoming")


def _columns(db: duckdb.DuckDBPyConnection, table: str) -> list[str]:
    found = db.execute(
        "SELECT column_name FROM duckdb_columns() WHERE database_name = 'results' AND table_name = ?"
        " ORDER BY column_index",
        [table],
    )
    return [name for (name,) in found.fetchall()]


def _facts(state: sqlite3.Connection) -> Mapping[str, str]:
    facts = dict(state.execute("SELECT key, value FROM meta"))
    (unfinished,) = state.execute("SELECT count(*) FROM stages WHERE planned AND state <> 'done'").fetchone()
    facts["complete"] = "false" if unfinished else "true"
    facts["published_at"] = datetime.now(UTC).isoformat(timespec="seconds")
    facts["engine_version"] = metadata.version("dosimeter")
    facts |= {f"version_{name}": metadata.version(name) for name in VERSIONED}
    return facts


def _quoted(path: os.PathLike[str]) -> str:
    return os.fspath(path).replace("'", "''")
