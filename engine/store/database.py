"""A connection to state.sqlite: opened and migrated for the driver, or only looked at; its errors are `StoreError`s."""

from __future__ import annotations

import json
import shutil
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, Self

from engine.domain.errors import StoreError
from engine.store.errors import mapped
from engine.store.layout import SEALED, RunDirectory
from engine.store.migrate import SCHEMA, latest, migrate, number_of

APPLICATION_ID = 0x444F5349
"""`DOSI`: marks the file as Dosimeter's."""

_NO_INDEX = ("SQLITE_CANTOPEN", "SQLITE_READONLY", "SQLITE_IOERR_SHM")
"""What SQLite raises when the index of the write-ahead log is not there and cannot be made."""

_FAULTS = (sqlite3.Error, UnicodeDecodeError, json.JSONDecodeError)
"""What a damaged file raises; its noise may stand in SQLite's own messages, and in columns that hold JSON."""

_OPENED = "the control plane cannot be opened"
_READ = "the control plane cannot be read"
_WRITTEN = "the control plane cannot be written"
_DAMAGED = "Restore this file from a backup, or choose another --out directory."


class Database:
    """One connection. It is a context manager: leaving it closes the file."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        """Keep an open connection, in autocommit mode, to the file at `path`."""
        self.path = path
        self._connection = connection

    @classmethod
    def open(cls, run: RunDirectory) -> Self:
        """Open the file for writing; it is made when missing, and brought to the schema of this version.

        Raises:
            StoreError: The file is another program's, is damaged, or is of a version that this one cannot go on from.
        """
        with mapped(_OPENED, run.state, *_FAULTS, todo=_DAMAGED):
            run.root.mkdir(parents=True, exist_ok=True)
            run.state.touch(mode=SEALED)
            database = cls(run.state, sqlite3.connect(run.state, isolation_level=None))
        with database._closed_on_failure(), mapped(_OPENED, run.state, *_FAULTS, todo=_DAMAGED):
            database._prepare()
        return database

    @classmethod
    def peek(cls, run: RunDirectory) -> Self:
        """Open the file for reading only: that changes nothing, needs no writable folder, and meets no run.

        A file of an earlier schema is read into memory and migrated there.

        Raises:
            StoreError: It is not there, is damaged, or is of a version that this one cannot read.
        """
        with mapped(_READ, run.state, *_FAULTS, todo=_DAMAGED):
            if not run.state.is_file():
                raise StoreError("this is not a run directory", where=str(run.root), todo="Name one with --run.")
            database = cls(run.state, _connected(run.state))
        with database._closed_on_failure(), database.reading():
            applied = database._applied()
            if applied < latest():
                database._connection = _in_memory(database._connection)
                migrate(database._connection, applied)
        return database

    @contextmanager
    def _closed_on_failure(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self.close()
            raise

    def _prepare(self) -> None:
        """Set up a file for writing, and bring it to the newest schema."""
        applied = self._applied()
        self.path.chmod(SEALED)
        self._connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = FULL")
        migrate(self._connection, applied)

    def _applied(self) -> int:
        """Return the number of the file's schema: 0 for a new file, which a run may have left that was killed at once."""
        (mark,) = self._connection.execute("PRAGMA application_id").fetchone()
        (tables,) = self._connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if not tables:
            return 0
        if mark != APPLICATION_ID:
            what = "the control plane belongs to another program"
            raise StoreError(what, where=str(self.path), todo="Choose another --out directory.")
        found = self._connection.execute("SELECT value FROM meta WHERE key = ?", (SCHEMA,)).fetchone()
        return number_of(found[0] if found else None, self.path)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Map what goes wrong while rows are read and understood: a damaged page may also hold text that means nothing.

        Raises:
            StoreError: The file is damaged, or cannot be read.
        """
        with mapped(_READ, self.path, *_FAULTS, ValueError, ArithmeticError, todo=_DAMAGED):
            yield

    def rows(self, sql: str, parameters: Iterable[object] = ()) -> list[tuple[Any, ...]]:
        """Return every row of a query.

        Raises:
            StoreError: The file is damaged, or cannot be read.
        """
        with self.reading():
            return self._connection.execute(sql, tuple(parameters)).fetchall()

    @contextmanager
    def commit(self) -> Iterator[sqlite3.Connection]:
        """Commit what is done inside as one transaction, or none of it.

        Raises:
            StoreError: The file is damaged, or the disk is full, read-only or gone.
        """
        with mapped(_WRITTEN, self.path, *_FAULTS, todo=_DAMAGED):
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Let all that is read inside be of one moment, whatever the driver commits meanwhile."""
        self.rows("BEGIN")
        try:
            yield
        finally:
            self.rows("COMMIT")

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close the file."""
        self.close()


def insert(db: sqlite3.Connection, table: str, rows: Iterable[dict[str, object]], suffix: str = "") -> None:
    """Insert rows by the names of their columns.

    Args:
        db: Inside a transaction.
        table: The table.
        rows: Rows that all have the same columns; there may be none.
        suffix: What stands behind the values, such as `ON CONFLICT ...`.
    """
    waiting = iter(rows)
    first = next(waiting, None)
    if first is None:
        return
    sql = f"INSERT INTO {table} ({', '.join(first)}) VALUES (:{', :'.join(first)}) {suffix}"  # noqa: S608 - our own
    db.executemany(sql, chain([first], waiting))


def _connected(path: Path) -> sqlite3.Connection:
    """Connect for reading only. Where SQLite needs a file beside it and the folder is not writable, read a copy."""
    connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, isolation_level=None)
    try:
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.OperationalError as error:
        connection.close()
        if not error.sqlite_errorname.startswith(_NO_INDEX):
            raise
        return _copied(path)
    except BaseException:
        connection.close()
        raise
    return connection


def _copied(path: Path) -> sqlite3.Connection:
    """Read the file into memory, with what its write-ahead log holds: without a shared index nobody writes to it."""
    with tempfile.TemporaryDirectory(prefix="dosimeter-") as folder:
        copy = Path(folder) / path.name
        shutil.copyfile(path, copy)
        log = path.with_name(f"{path.name}-wal")
        if log.exists():
            shutil.copyfile(log, copy.with_name(log.name))
        return _in_memory(sqlite3.connect(copy, isolation_level=None))


def _in_memory(file: sqlite3.Connection) -> sqlite3.Connection:
    """Return a copy of a database in memory, and close the file."""
    memory = sqlite3.connect(":memory:", isolation_level=None)
    with closing(file):
        file.backup(memory)
    return memory
