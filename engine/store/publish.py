"""results.duckdb, rebuilt beside the old one from the control database and the shards that it has recorded, and moved into place.

The file that people open is never the file that the engine writes: an open notebook blocks no run, and a run blocks
no notebook. It holds no model text.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata, resources
from pathlib import Path

import duckdb
import pyarrow as pa

from engine.store.errors import AGAIN, interruptible, mapped
from engine.store.layout import SEALED, RunDirectory, sha256_of, sync
from engine.store.reader import VIEWS
from engine.store.state import PLAN_TABLES, State

STORAGE_VERSION = "v1.4.0"
"""DuckDB 1.4 and later can read the file."""

SHARD_TABLES = ("prompts", "responses", "verdicts", "training", "samples")
ATTEMPTS = """
WITH RECURSIVE shown (stage_key) AS (
    SELECT stage_key FROM stages WHERE planned
    UNION SELECT a.after_key FROM attempts a JOIN shown USING (stage_key) WHERE a.after_key IS NOT NULL)
SELECT {} FROM attempts JOIN shown USING (stage_key)
"""
"""Attempts of the plan's stages, and of the earlier checkpoints that they went on from: a dose costs all of its steps."""

VERSIONED = ("duckdb", "ray", "torch", "transformers", "peft", "trl")


def refresh(run: RunDirectory, state: State) -> None:
    """Publish, unless results.duckdb is whole and shows all of it already.

    Args:
        run: The run directory.
        state: Its control plane, open for writing.

    Raises:
        StoreError: It cannot be published: a full disk, a damaged shard.
    """
    shown = f"{metadata.version('dosimeter')} {state.digest()}"
    if state.meta().get("published") != f"{shown} {_trace(run.results)}":
        publish(run)
        state.put_meta({"published": f"{shown} {_trace(run.results)}"})  # after the file is in place, never before


def _trace(results: Path) -> str:
    """Return the hash of the published file; nothing when it is not there, or cannot be read."""
    try:
        return sha256_of(results)
    except OSError:
        return ""


def publish(run: RunDirectory) -> float:
    """Rebuild results.duckdb from state.sqlite and the acknowledged shards.

    It is built in a folder of its own, for the owner's eyes only; what a killed publication left there goes first.

    Args:
        run: The run directory; nobody else publishes in it meanwhile.

    Returns:
        The seconds that it took.

    Raises:
        StoreError: It cannot be built or moved into place: a full disk, a damaged shard. The old file stays.
        KeyboardInterrupt: Ctrl-C came meanwhile. The old file stays.
    """
    begun = time.monotonic()
    with mapped("the results cannot be published", run.results, duckdb.Error, pa.ArrowException, todo=AGAIN):
        shutil.rmtree(run.publishing, ignore_errors=True)
        run.publishing.mkdir(mode=0o700)
        try:
            built = run.publishing / run.results.name
            with State.peek(run) as state, state.snapshot(), interruptible():
                _build(run, built, state)
            built.chmod(SEALED)
            sync(built)
            built.replace(run.results)
            sync(run.root)
        finally:
            shutil.rmtree(run.publishing, ignore_errors=True)
    return time.monotonic() - begun


def _build(run: RunDirectory, path: Path, state: State) -> None:
    with duckdb.connect(config={"threads": 1, "temp_directory": str(run.publishing)}) as db:
        db.execute(f"ATTACH '{_quoted(path)}' AS results (STORAGE_VERSION '{STORAGE_VERSION}')")
        db.execute("USE results")
        for script in ("tables.sql", "views.sql"):
            db.execute(resources.files("engine.store").joinpath(script).read_text(encoding="utf-8"))
        db.execute("BEGIN")
        _copy_control(db, state)
        _copy_shards(run, db, state)
        _insert(db, "meta", _facts(state).items())
        db.execute("COMMIT")
        db.execute("CHECKPOINT results")
        db.execute("USE memory")
        db.execute("DETACH results")


def _copy_control(db: duckdb.DuckDBPyConnection, state: State) -> None:
    queries = {table: f"SELECT {{}} FROM {table}" for table in PLAN_TABLES if table != "settings"}  # noqa: S608 - our own names
    queries |= {"stages": "SELECT {} FROM stages WHERE planned", "attempts": ATTEMPTS}
    for table, query in queries.items():
        _insert(db, table, state.rows(query.format(", ".join(_columns(db, table)))))
    db.register(
        "own", _arrow(["cell_id", "settings"], state.rows("SELECT cell_id, settings FROM cells ORDER BY position"))
    )
    kept = ["setting_id", "path", "adapter", "value"]
    db.register("kept", _arrow(kept, state.rows(f"SELECT {', '.join(kept)} FROM settings")))  # noqa: S608 - our own names
    db.execute(
        "INSERT INTO cell_settings SELECT cell_id, path, adapter, value"
        " FROM (SELECT cell_id, unnest(settings::INTEGER[]) AS setting_id FROM own) JOIN kept USING (setting_id)"
    )


def _copy_shards(run: RunDirectory, db: duckdb.DuckDBPyConnection, state: State) -> None:
    """Copy the rows of acknowledged stages; a file may also hold rows of stages that have to run again."""
    for table in SHARD_TABLES:
        found = state.rows(
            "SELECT path, stage_key FROM shards LEFT JOIN stages USING (stage_key)"
            " WHERE table_name = ? AND coalesce(planned, 1) ORDER BY path",
            (table,),
        )
        if not found:
            continue
        files = [str(run.root / path) for path, _ in found]
        names = _columns(db, table)
        columns = "|".join(names)
        known = {"filename": files} | ({"stage_key": [key for _, key in found]} if "stage_key" in names else {})
        db.register("known", pa.table(known))
        db.execute(
            # By name, for shards of earlier releases lack the younger columns.
            f"INSERT INTO {table} BY NAME SELECT COLUMNS('^({columns})$')"  # noqa: S608 - our own names
            " FROM read_parquet(?, filename = true, union_by_name = true)"
            f" SEMI JOIN known USING ({', '.join(known)})",
            [sorted(set(files))],
        )
        db.unregister("known")


def _insert(db: duckdb.DuckDBPyConnection, table: str, rows: Iterable[Sequence[object]]) -> None:
    """Insert Python rows by way of Arrow, letting DuckDB cast text to the columns' types."""
    fetched = list(rows)
    if not fetched:
        return
    names = _columns(db, table)
    db.register("incoming", _arrow(names, fetched))
    casts = ", ".join(
        f"make_timestamp(CAST(round({name} * 1e6) AS BIGINT)) AS {name}" if name.endswith("_at") else f'"{name}"'
        for name in names
    )
    db.execute(f"INSERT INTO {table} SELECT {casts} FROM incoming")  # noqa: S608 - our own names
    db.unregister("incoming")


def _arrow(names: list[str], rows: Sequence[Sequence[object]]) -> pa.Table:
    return pa.table([pa.array(values) for values in zip(*rows, strict=True)] or [[]] * len(names), names=names)


def _columns(db: duckdb.DuckDBPyConnection, table: str) -> list[str]:
    return [name for name, *_ in db.execute(f"FROM {table} LIMIT 0").description or ()]


def _facts(state: State) -> Mapping[str, str]:
    facts: dict[str, str] = dict(state.rows("SELECT key, value FROM meta"))
    ((unfinished,),) = state.rows("SELECT count(*) FROM stages WHERE planned AND state <> 'done'")
    facts["complete"] = "false" if unfinished else "true"
    facts["published_at"] = datetime.now(UTC).isoformat(timespec="seconds")
    facts["engine_version"] = metadata.version("dosimeter")
    facts["views"] = VIEWS
    facts |= {f"version_{name}": metadata.version(name) for name in VERSIONED}
    return facts


def _quoted(path: os.PathLike[str]) -> str:
    return os.fspath(path).replace("'", "''")
