"""The read side of the store: the only place where results are opened for reading.

A `Results` answers one SELECT-like statement at a time and can do nothing else: the file is attached read-only, and
before any SQL of a person runs, DuckDB is locked down (no file, no network, no extension, no setting; a time limit).
The file is never held open for writing, and `publish` replaces it by renaming, so a reader and a run do not meet.
"""

from __future__ import annotations

import re
import threading
from contextlib import contextmanager
from itertools import count
from typing import TYPE_CHECKING, Self

import duckdb

from engine.domain.errors import QueryError, StoreError
from engine.store.errors import AGAIN, mapped
from engine.store.sealed import load_sealed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    import pyarrow as pa

RESULTS_FILE = "results.duckdb"

VIEWS = "1"
"""The number of the public views, which a published file carries as the fact `views`: raise it when a column changes."""

_READING = {"SELECT", "EXPLAIN"}
_PRAGMAS = re.compile(r"\s*pragma\s+(table_info|show_tables|version|database_size)\b", re.IGNORECASE)
_SETTINGS = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "python_enable_replacements": "false",  # a query sees no Python variable
    "temp_directory": "",  # nothing is spilled, so nothing is written
    "memory_limit": "2GB",
}


def open_results(run_dir: Path, *, unseal: bool = False, timeout_s: float = 60.0, threads: int = 2) -> Results:
    """Open what a run has published, for reading.

    Args:
        run_dir: The run directory.
        unseal: Also load the sealed texts, as the views `v_responses` and `v_verdicts`.
        timeout_s: Seconds after which a query is interrupted, > 0.
        threads: DuckDB's threads, >= 1.

    Raises:
        StoreError: There is no `results.duckdb`, it cannot be opened or is of another version, or the sealed shards cannot
            be read.
    """
    path = run_dir / RESULTS_FILE
    with mapped("the published results cannot be read", path, duckdb.Error, todo=AGAIN):
        if not path.is_file():
            raise StoreError(
                "there are no published results",
                where=str(path),
                todo="Is this a run directory? `dosimeter run` publishes results as it goes.",
            )
        # Attached to a connection in memory, not opened: DuckDB caches open files by path within a process, and would go
        # on serving the old file after `publish` has replaced it.
        connection = duckdb.connect(":memory:", config={**_SETTINGS, "threads": str(threads)})
        try:
            _attach(connection, path)
            if unseal:
                load_sealed(connection, run_dir)
            connection.execute("SET enable_external_access = false")
            connection.execute("SET lock_configuration = true")
        except BaseException:
            connection.close()
            raise
    return Results(connection, path, timeout_s)


def _attach(connection: duckdb.DuckDBPyConnection, path: Path) -> None:
    quoted = str(path).replace("'", "''")
    connection.execute(f"ATTACH '{quoted}' AS results (READ_ONLY)")
    connection.execute("USE results")
    facts: dict[str, str] = dict(connection.execute("SELECT key, value FROM meta").fetchall())
    if facts.get("views") != VIEWS:
        version = facts.get("engine_version", "an unknown version")
        raise StoreError(
            f"these results were published by another Dosimeter ({version}), whose views differ",
            where=str(path),
            todo=AGAIN,
        )


class Results:
    """A locked-down, read-only connection to published results; `open_results` makes it.

    It is a context manager: leaving it closes the file. It is not safe to share between threads.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection, path: Path, timeout_s: float) -> None:
        """Keep a connection that is locked down already."""
        self._connection = connection
        self._timeout_s = timeout_s
        self.path = path

    def table(self, sql: str, parameters: Sequence[object] | Mapping[str, object] | None = None) -> pa.Table:
        """Run one SELECT-like statement.

        Args:
            sql: One statement: SELECT, WITH, FROM, VALUES, DESCRIBE, SUMMARIZE, SHOW, EXPLAIN, PRAGMA table_info.
            parameters: Values for `?` or `$name` in it.

        Returns:
            All rows, in memory. Of columns with one name, as a join has them, the later ones get a number behind it.

        Raises:
            QueryError: The SQL is wrong, is not one reading statement, or ran past the time limit.
            StoreError: The file is damaged.
        """
        self._refuse_unless_reading(sql)
        with self._time_limit() as expired:
            try:
                # A relation read at once: in DuckDB 2.0 an open result would own the connection.
                found = self._connection.sql(sql, params=parameters).to_arrow_table()
                return found.rename_columns(_told_apart(found.column_names))
            except duckdb.InterruptException as error:
                if not expired.is_set():
                    raise KeyboardInterrupt from error
                raise QueryError(
                    f"the query ran for more than {self._timeout_s:g} s and was stopped",
                    where=_excerpt(sql),
                    todo="Ask for less at once, or allow it more time.",
                ) from error
            except duckdb.Error as error:
                if _is_damage(error):
                    what = f"the published results cannot be read: {_short(error)}"
                    raise StoreError(what, where=str(self.path), todo=AGAIN) from error
                raise QueryError(_short(error), where=_excerpt(sql), todo=_advice(error)) from error

    def close(self) -> None:
        """Close the file; harmless when it is closed."""
        self._connection.close()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close the file."""
        self.close()

    def _refuse_unless_reading(self, sql: str) -> None:
        try:
            statements = self._connection.extract_statements(sql)
        except duckdb.Error as error:
            raise QueryError(_short(error), where=_excerpt(sql)) from error
        if not statements:
            raise QueryError("the query is empty", todo="Try `FROM v_cells`.")
        kinds = [statement.type.name for statement in statements]
        if len(statements) > 1 or kinds[0] == "MULTI":
            raise QueryError(
                "one statement at a time, please",
                where=_excerpt(sql),
                todo="Run them one by one; write a PIVOT as `SELECT * FROM v_… PIVOT (… FOR … IN (…))`.",
            )
        if kinds[0] not in _READING and not (kinds[0] == "PRAGMA" and _PRAGMAS.match(sql)):
            raise QueryError(
                f"results are read-only: {kinds[0]} is refused",
                where=_excerpt(sql),
                todo="Ask with SELECT, WITH, FROM, DESCRIBE, SUMMARIZE, SHOW or EXPLAIN.",
            )

    @contextmanager
    def _time_limit(self) -> Iterator[threading.Event]:
        expired = threading.Event()

        def expire() -> None:
            expired.set()
            self._connection.interrupt()

        timer = threading.Timer(self._timeout_s, expire)
        timer.daemon = True
        timer.start()
        try:
            yield expired
        finally:
            timer.cancel()


def _told_apart(names: Sequence[str]) -> list[str]:
    """Return names of which no two are equal: whoever makes rows of them would lose one.

    >>> _told_apart(["a", "b", "a", "a"])
    ['a', 'b', 'a_2', 'a_3']
    """
    found: list[str] = []
    for name in names:
        free = (text for number in count(1) if (text := name if number == 1 else f"{name}_{number}") not in found)
        found.append(next(free))
    return found


def _is_damage(error: duckdb.Error) -> bool:
    """Tell damage of the file from a wrong query: a query that is locked down opens no other file."""
    return isinstance(error, duckdb.IOException | duckdb.FatalException) or "Corrupt database" in str(error)


def _short(error: duckdb.Error) -> str:
    """Return DuckDB's message and its did-you-mean, without the source excerpt that follows them."""
    message = str(error).partition("\nLINE ")[0]
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    return " ".join(lines[:2])[:400]


def _advice(error: duckdb.Error) -> str:
    if isinstance(error, duckdb.PermissionException):
        return "Queries see the published views only: no files, no network, no settings."
    if isinstance(error, duckdb.CatalogException):
        return "`SHOW TABLES` lists the views; docs/reference/views.md describes them."
    if isinstance(error, duckdb.BinderException):
        return "`DESCRIBE v_cells` lists a view's columns; docs/reference/views.md describes them."
    return ""


def _excerpt(sql: str) -> str:
    """Return the query on one line, cut to fit one."""
    line = " ".join(sql.split())
    return line if len(line) <= 100 else f"{line[:99]}…"  # noqa: PLR2004
