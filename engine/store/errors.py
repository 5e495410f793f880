"""The store's boundary: what SQLite, DuckDB, Parquet, JSON and the disk raise becomes a `StoreError` here, and nowhere else."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

from engine.domain.errors import StoreError

INTERRUPTED = "Query interrupted"
"""DuckDB's words, in a plain RuntimeError."""

AGAIN = "Give the same `dosimeter run` command: it checks every file, makes damaged ones again, and publishes anew."
"""What to do about damage of anything that can be made again."""

_RESUMES = "The same command resumes; what was committed is kept."
_REMEDIES = (
    (
        ("ENOSPC", "EDQUOT", "EFBIG", "SQLITE_FULL"),
        ("No space left", "quota exceeded", "File too large"),
        f"Make room on the disk. {_RESUMES}",
    ),
    (
        ("SQLITE_BUSY", "SQLITE_LOCKED"),
        ("Could not set lock",),
        "Another program holds the file open. Close it there, and give the same command again.",
    ),
    (
        ("EROFS", "SQLITE_READONLY"),
        ("Read-only file system",),
        "Make the file and its folder writable, or copy the run directory to where they are.",
    ),
    (
        ("EACCES", "EPERM", "SQLITE_CANTOPEN", "SQLITE_PERM"),
        ("Permission denied", "Operation not permitted"),
        "Look at the permissions of the file and of its folder.",
    ),
    (
        ("EIO", "SQLITE_IOERR"),
        ("Input/output error",),
        f"Look at the disk: it may be full or failing. {_RESUMES}",
    ),
)
"""(codes, words, remedy): errors of the system and of SQLite have a code, those of DuckDB and Arrow only words."""


@contextmanager
def mapped(what: str, where: Path, *kinds: type[Exception], todo: str = "") -> Iterator[None]:
    """Raise errors of the disk, and of `kinds`, as a `StoreError`.

    Args:
        what: What could not be done, such as `the control plane cannot be read`.
        where: The file or the folder.
        kinds: What a library raises when a file is damaged; `OSError` is always among them.
        todo: What to do about damage. Where the disk itself is at fault (full, read-only, not permitted), the remedy for
            that stands in its place.

    Raises:
        StoreError: With the library's words behind `what`.
    """
    faults: tuple[type[Exception], ...] = (OSError, *kinds)
    try:
        yield
    except faults as error:
        raise StoreError(f"{what}: {_reason(error)}", where=str(where), todo=_remedy(error) or todo) from error


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise Ctrl-C as what it is: DuckDB, which hears it while it works, makes another error of it."""
    try:
        yield
    except duckdb.InterruptException as error:
        raise KeyboardInterrupt from error
    except RuntimeError as error:
        if INTERRUPTED not in str(error):
            raise
        raise KeyboardInterrupt from error


def _reason(error: Exception) -> str:
    """Return the library's own words on one line, without a path that stands in `where` already."""
    words = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(words.split())[:400] or type(error).__name__


def _remedy(error: Exception) -> str:
    code = errno.errorcode.get(error.errno or 0, "") if isinstance(error, OSError) else ""
    code = str(getattr(error, "sqlite_errorname", code))  # with what SQLite appends, such as SQLITE_IOERR_WRITE
    for codes, words, remedy in _REMEDIES:
        if code.startswith(codes) or any(word in str(error) for word in words):
            return remedy
    return ""
