"""What is known of each paid job, on disk before anything is built on it: the intent before the request, the id before polling.

One small file a tune stage, or a batch, written whole by the worker of the account. It outlives that worker, the driver and the
machine's power; after any of these, the job is found again by the id in it, or at the provider by the key in its metadata.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from engine.store.errors import mapped
from engine.store.layout import write_text

DAMAGED = "Restore the file; or delete it, and the job or batch is looked for at the provider by its key."


@dataclass(frozen=True, slots=True)
class JobRecord:
    """What is known of a job.

    Attributes:
        key: The tune stage's key, or a batch's (`batch_key`).
        account: Name of the account that pays.
        provider: The account's provider.
        intended_at: When the request was about to be sent, in seconds since the epoch, UTC.
        job_id: The provider's name for the job, or the batch; empty until it is known.
        state: Where it was when last seen (`engine.ports.provider.JobState`); empty before. A batch's is empty until its answers are read.
        is_booked: Whether what it cost is in the ledger, with an attempt that has ended.
        unbooked_tokens: Tokens trained by earlier jobs of this key that ended for nothing, and are not in the ledger yet.
        is_adopted: Whether somebody else made it, such as another run directory.
    """

    key: str
    account: str
    provider: str
    intended_at: float
    job_id: str = ""
    state: str = ""
    is_booked: bool = False
    unbooked_tokens: int = 0
    is_adopted: bool = False

    def latest_arrival(self, timeout: float) -> float | None:
        """Return the latest moment at which the request may have arrived, in seconds since the epoch; None when what came of it is known.

        It may have taken `timeout` seconds.
        """
        return None if self.state or self.job_id else min(time.time(), self.intended_at + timeout)


def batch_key(stage_key: str, number: int) -> str:
    """Return the key of a stage's batch of that number, from 1."""
    return f"{stage_key}.{number}"


class Journal:
    """The records in a folder: `RunDirectory.jobs`, or `RunDirectory.batches`."""

    def __init__(self, folder: Path) -> None:
        """Read nothing yet."""
        self._folder = folder

    def read(self, key: str) -> JobRecord | None:
        """Return what is known of a job, or None when nothing was ever intended.

        Raises:
            StoreError: The record is damaged.
        """
        path = self._path(key)
        if not path.is_file():
            return None
        with mapped("the record of something paid for cannot be read", path, ValueError, TypeError, todo=DAMAGED):
            return JobRecord(**json.loads(path.read_text(encoding="utf-8")))

    def write(self, record: JobRecord) -> None:
        """Keep a record; it is on the disk when this returns."""
        write_text(self._path(record.key), json.dumps(asdict(record), indent=1))

    def book(self, key: str) -> None:
        """Note that what a job cost is in the ledger: whoever finds it again does not count it again."""
        record = self.read(key)
        if record is not None and record.job_id:
            self.write(replace(record, is_booked=True, unbooked_tokens=0))

    def records(self) -> list[JobRecord]:
        """Return every record, by key."""
        return self._matching("*")

    def batches(self, stage_key: str) -> list[JobRecord]:
        """Return the records of a stage's batches, by number; their keys are `batch_key`."""
        found = self._matching(f"{stage_key}.*")
        return sorted(found, key=lambda record: int(record.key.rpartition(".")[2]))

    def _matching(self, pattern: str) -> list[JobRecord]:
        paths = sorted(self._folder.glob(f"{pattern}.json")) if self._folder.is_dir() else []
        return [record for path in paths if (record := self.read(path.stem)) is not None]

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}.json"
