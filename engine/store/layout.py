"""Where things are in a run directory, and writing a file so that it is whole or absent."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from engine.store.errors import mapped

SEALED = 0o600
"""Mode of every file that may hold model text: the owner's eyes only."""


@dataclass(frozen=True, slots=True)
class RunDirectory:
    """The paths of one run.

    Attributes:
        root: The run directory.
    """

    root: Path

    @property
    def state(self) -> Path:
        """The SQLite control plane."""
        return self.root / "state.sqlite"

    @property
    def lock(self) -> Path:
        """Held by the process that drives the run."""
        return self.root / "lock"

    @property
    def results(self) -> Path:
        """The published DuckDB file."""
        return self.root / "results.duckdb"

    @property
    def publishing(self) -> Path:
        """Where the next results.duckdb is built, for the owner's eyes only; gone when it is in place."""
        return self.root / ".publishing"

    @property
    def shards(self) -> Path:
        """Parquet files, one folder per table."""
        return self.root / "shards"

    @property
    def artifacts(self) -> Path:
        """Tuned and edited weights, one folder per stage key."""
        return self.root / "artifacts"

    @property
    def jobs(self) -> Path:
        """What is known of each paid job, one file per tune stage."""
        return self.root / "jobs"

    @property
    def batches(self) -> Path:
        """What is known of each paid batch of chat requests, one file per batch."""
        return self.root / "batches"

    @property
    def replies(self) -> Path:
        """Paid replies of stages that have not ended, one file per stage."""
        return self.root / "replies"

    @property
    def failures(self) -> Path:
        """What adapters of others said when they failed over rows or responses, one sealed file per stage."""
        return self.root / "failures"

    @property
    def rehearsal(self) -> Path:
        """What a rehearsal's servers have, one folder per account."""
        return self.root / "rehearsal"


def write_whole(path: Path, write: Callable[[Path], object], mode: int = SEALED) -> None:
    """Write a file beside `path`, sync it, and move it into place, so that readers see all of it or none.

    Args:
        path: Where the file goes; its folder is made when missing.
        write: Writes the file at the path it is given.
        mode: Its permissions.

    Raises:
        StoreError: The disk is full, read-only or failing, or the permissions do not allow it.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with mapped("a file of the run directory cannot be written", path):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            temporary.touch(mode=mode)  # sealed from the first byte on
            write(temporary)
            sync(temporary)
            temporary.replace(path)
            sync(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file so that it is whole or absent, for the owner's eyes only; raises as `write_whole`."""
    write_whole(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def sync(path: Path) -> None:
    """Ask the disk to keep a file or a folder's list of names."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
