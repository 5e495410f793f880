"""The schema of state.sqlite, as numbered scripts that are applied in order: `migrations/NNNN_name.sql`, each once.

The number of the last one applied is the fact `schema` in `meta`, which the published results have too. Releases add
scripts and never change one, so that a run directory of any release opens, reports and goes on.
"""

from __future__ import annotations

import sqlite3
from functools import cache
from importlib.resources import files
from pathlib import Path

from engine.domain.errors import StoreError

SCHEMA = "schema"
"""The fact in `meta`: the number of the last script applied."""


@cache
def migrations() -> tuple[str, ...]:
    """Return every step that this version knows: the statements of number 1, of number 2, and so on."""
    folder = files("engine.store").joinpath("migrations")
    scripts = sorted((entry for entry in folder.iterdir() if entry.name.endswith(".sql")), key=lambda entry: entry.name)
    return tuple(entry.read_text(encoding="utf-8") for entry in scripts)


def latest() -> int:
    """Return the schema that this version writes."""
    return len(migrations())


def number_of(found: str | None, where: Path) -> int:
    """Return the number that a file's fact `schema` holds.

    Args:
        found: The fact; None where there is none.
        where: The file.

    Raises:
        StoreError: There is none, or it is of a version to come.
    """
    if found is None or not found.isdecimal():
        raise StoreError(
            "this run directory was made before Dosimeter 0.2.0, by a version that was never released",
            where=str(where),
            todo="Choose another --out directory: the same spec runs anew there.",
        )
    if int(found) > latest():
        raise StoreError(
            f"this run directory was made by a newer Dosimeter: its schema is number {found}, and this one knows "
            f"{latest()}",
            where=str(where),
            todo="Install the newest Dosimeter, and give the same command again.",
        )
    return int(found)


def migrate(connection: sqlite3.Connection, applied: int) -> None:
    """Apply the steps that a file lacks, each in a transaction of its own.

    Args:
        connection: Open for writing, in autocommit mode.
        applied: The number of the last step that it has; 0 for a new file.

    Raises:
        sqlite3.Error: A step failed; those before it stay applied.
    """
    for number, sql in enumerate(migrations()[applied:], start=applied + 1):
        note = f"INSERT OR REPLACE INTO meta (key, value) VALUES ('{SCHEMA}', '{number}');"  # noqa: S608 - our own
        try:
            connection.executescript(f"BEGIN IMMEDIATE;\n{sql}\n{note}\nCOMMIT;")
        except sqlite3.Error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
