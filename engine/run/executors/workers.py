"""Workers: processes (or objects) that run stage batches one after another and keep expensive things warm between them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias, TypeVar

from engine import registry
from engine.domain.adapters import Kind
from engine.domain.results import Attempt
from engine.run.accounts.worker import AccountWorker
from engine.run.executors.work import WorkerSettings, work
from engine.run.slots import Slot
from engine.run.stages.batch import StageBatch
from engine.store.layout import RunDirectory

T = TypeVar("T")
Needed: TypeAlias = tuple[Literal[Kind.TUNER, Kind.GENERATOR], str]
"""A fine-tuner or generator, by name."""


class WarmSlots:
    """Named slots that hold one expensive thing each. Implements `engine.ports.Warm`."""

    def __init__(self) -> None:
        """Start cold."""
        self._slots: dict[str, tuple[str, Any]] = {}

    def get(self, slot: str, key: str, make: Callable[[], T]) -> T:
        """Return what `slot` holds under `key`, or make it and keep that instead."""
        held = self._slots.get(slot)
        if held is None or held[0] != key:
            self._slots.pop(slot, None)  # free the old one before the new one takes memory
            held = (key, make())
            self._slots[slot] = held
        kept: T = held[1]
        return kept

    def drop(self, slot: str) -> None:
        """Empty a slot."""
        self._slots.pop(slot, None)


class Worker:
    """Runs stage batches, one at a time.

    Args:
        name: Its name, for the record.
        settings: What it is made from.
    """

    def __init__(self, name: str, settings: WorkerSettings) -> None:
        """Start with nothing warm."""
        self._name = name
        self._settings = settings
        self._warm = WarmSlots()
        self._accounts: dict[str, AccountWorker] = {}
        self._connecting = threading.Lock()

    def warm_up(self, needed: tuple[Needed, ...]) -> None:
        """Have adapters load the libraries that they will need, while this worker has nothing else to do."""
        for kind, name in needed:
            registry.adapter(kind, name).warm_up()

    def run(self, batch: StageBatch) -> Iterator[tuple[Attempt, ...]]:
        """Run a batch and yield its stages' attempts as they end; never raises for an adapter's error."""
        yield from work(batch, batch.slot or self._name, self._settings, self._warm, self._account)

    def close(self) -> None:
        """Send nothing more at any account."""
        for account in self._accounts.values():
            account.close()
        self._accounts.clear()

    def _account(self, name: str) -> AccountWorker:
        """Return the worker of an account, connected once, whichever thread is first."""
        with self._connecting:
            if name not in self._accounts:
                run = RunDirectory(self._settings.run_root)
                self._accounts[name] = AccountWorker(name, self._settings.accounts[name], run)
            return self._accounts[name]


@dataclass(frozen=True, slots=True)
class WorkerLost:
    """A worker died while it ran a batch.

    Attributes:
        worker: Its name; the executor has replaced it.
        why: What is known of its end.
    """

    worker: str
    why: str


class Executor(Protocol):
    """Runs stage batches on workers. Real implementations: `InlineExecutor` and `RayExecutor`."""

    @property
    def slots(self) -> tuple[Slot, ...]:
        """The workers, and what each runs."""
        ...

    def submit(self, worker: str, batch: StageBatch) -> None:
        """Start a batch on an idle worker; returns at once where the worker is another process."""
        ...

    def poll(self, timeout: float) -> list[Attempt | WorkerLost]:
        """Return what has ended, waiting at most `timeout` seconds for the first."""
        ...

    def close(self) -> None:
        """Stop every worker, now."""
        ...
