"""One worker in this very process: for debugging, for machines without Ray, and for tests. A product, not a mock."""

from __future__ import annotations

from collections.abc import Iterator

from engine.domain.results import Attempt
from engine.domain.stage import WorkerKind
from engine.run.executors.work import WorkerSettings
from engine.run.executors.workers import Worker, WorkerLost
from engine.run.slots import Slot
from engine.run.stages.batch import StageBatch

NAME = "inline"


class InlineExecutor:
    """Runs its batch while it is polled, up to the next attempts that end.

    Args:
        settings: What the worker is made from.
    """

    def __init__(self, settings: WorkerSettings) -> None:
        """Make the one worker."""
        self._worker = Worker(NAME, settings)
        self._under_way: Iterator[tuple[Attempt, ...]] | None = None

    @property
    def slots(self) -> tuple[Slot, ...]:
        """The one worker, which runs everything."""
        return (Slot(NAME, WorkerKind.MODEL, is_all=True),)

    def submit(self, worker: str, batch: StageBatch) -> None:
        """Remember the batch until the next poll."""
        if worker != NAME:
            message = f"there is no worker {worker}"
            raise ValueError(message)
        self._under_way = self._worker.run(batch)

    def poll(self, timeout: float) -> list[Attempt | WorkerLost]:
        """Go on with the batch until some of its stages end, however long it takes."""
        del timeout
        return [] if self._under_way is None else list(next(self._under_way, ()))

    def close(self) -> None:
        """Leave the accounts; nothing else outlives this process."""
        self._worker.close()
