"""One worker in this very process: for debugging, for machines without Ray, and for tests. A product, not a mock."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from engine.domain.results import Attempt
from engine.domain.stage import WorkerKind
from engine.domain.sweep import RunSettings
from engine.run.executors.workers import Worker, WorkerLost
from engine.run.slots import Slot
from engine.run.stages.batch import StageBatch

NAME = "inline"


class InlineExecutor:
    """Runs its batch while it is polled, up to the next attempts that end. The parameters are those of `Worker`."""

    slots = (Slot(NAME, WorkerKind.MODEL, is_all=True),)

    def __init__(self, root: Path, settings: RunSettings) -> None:
        """Make the one worker; with GPUs it has the first that this process sees."""
        self._worker = Worker(root, settings, "cuda:0" if settings.resources.gpus_per_host else "cpu")
        self._under_way: Iterator[tuple[Attempt, ...]] = iter(())

    def submit(self, worker: str, batch: StageBatch) -> None:
        """Remember the batch until the next poll."""
        del worker
        self._under_way = self._worker.run(batch)

    def poll(self, timeout: float) -> list[Attempt | WorkerLost]:
        """Go on with the batch until some of its stages end, however long it takes."""
        del timeout
        return list(next(self._under_way, ()))

    def close(self) -> None:
        """Leave the accounts; nothing else outlives this process."""
        self._worker.close()
