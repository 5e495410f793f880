"""One driver per run directory: a lock that the system releases when its process dies, however it dies."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager

from filelock import FileLock, Timeout

from engine.domain.errors import RunLockedError
from engine.store.layout import RunDirectory

PATIENCE_SECONDS = 0.5
"""Longer than `is_held` may hold the lock to try it."""


@contextmanager
def held(run: RunDirectory) -> Iterator[None]:
    """Hold the run directory's lock.

    Raises:
        RunLockedError: When another process holds it.
    """
    lock = FileLock(run.lock, timeout=PATIENCE_SECONDS)
    try:
        lock.acquire()
    except Timeout as error:
        raise RunLockedError(
            "another process is running this sweep",
            where=str(run.root),
            todo="wait for it, watch it with `dosimeter status`, or choose another --out directory",
        ) from error
    try:
        yield
    finally:
        lock.release()


def is_held(run: RunDirectory) -> bool:
    """Tell whether a process drives this run directory now."""
    try:
        with run.lock.open("rb") as file:  # for reading: who only looks may not be allowed to write
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False
