"""Workers: processes (or objects) that run stage batches one after another and keep expensive things warm between them."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol, TypeAlias, TypeVar

from engine import registry
from engine.domain.adapters import Kind
from engine.domain.results import Attempt
from engine.domain.stage import StageKind, WorkerKind
from engine.domain.sweep import RunSettings
from engine.plan.machine import machine
from engine.ports import Context, NoPulse
from engine.run.accounts.worker import AccountWorker
from engine.run.executors.gathering import Gathering
from engine.run.executors.pulse import WorkerPulse
from engine.run.slots import Slot
from engine.run.stages import answers, judging, models, rows
from engine.run.stages.batch import Place, Runner, StageBatch, each
from engine.store.layout import RunDirectory

T = TypeVar("T")

RUNNERS: Mapping[StageKind, Runner] = MappingProxyType(
    {
        StageKind.SAMPLE: each(rows.sample),
        StageKind.ROWS: each(rows.change),
        StageKind.TUNE: models.tune,
        StageKind.WEIGHTS: each(models.edit),
        StageKind.GENERATE: answers.generate,
        StageKind.SCREEN: each(answers.screen),
        StageKind.JUDGE: judging.judge,
    }
)


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
    """Runs stage batches, one at a time in each of its slots."""

    def __init__(
        self, root: Path, settings: RunSettings, device: str, gpus: int = 0, pulse: WorkerPulse | None = None
    ) -> None:
        """Start with nothing warm, for a run directory (an absolute path), on a torch device such as `cpu` or `cuda:0`.

        With several GPUs, the device is the first of them.
        """
        self._run = RunDirectory(root)
        self._settings = settings
        self._device = device
        self._gpus = gpus
        self._pulse = pulse or WorkerPulse()
        self._warm = WarmSlots()
        self._accounts: dict[str, AccountWorker] = {}
        self._connecting = threading.Lock()

    def warm_up(self, adapters: Iterable[tuple[StageKind, str]]) -> None:
        """Have fine-tuners and generators load the libraries that they will need, while there is nothing else to do."""
        for kind, name in adapters:
            if kind is StageKind.TUNE:
                registry.adapter(Kind.TUNER, name).warm_up()
            elif kind is StageKind.GENERATE:
                registry.adapter(Kind.GENERATOR, name).warm_up()

    def run(self, batch: StageBatch) -> Iterator[tuple[Attempt, ...]]:
        """Run a batch and yield its stages' attempts as they end, a few at a time; never raises for an adapter's error."""
        gathering = Gathering(batch, self._run)
        resources = self._settings.resources
        try:
            account = None if batch.account is None else self._account(batch.account)
            threads = max(1, int(resources.cpus_per_host))
            # What a provider has been asked for is waited for: only a device's stages are stopped on their way.
            pulse = self._pulse if account is None else NoPulse()
            pulse.beat(batch.stages[0].key, 0, 1)
            generate_batch = resources.generate_batch
            context = Context(self._device, threads, generate_batch, self._warm, account, self._gpus, pulse)
            for key, made in RUNNERS[batch.stages[0].kind](batch, Place(self._run, context)):
                gathering.put(key, made)
                if gathering.is_due:
                    yield gathering.flush()
            gathering.fail_rest(RuntimeError("its adapter ended without a word about it"))
        except Exception as error:  # noqa: BLE001 - the error boundary: a failed stage is a row, not a crash
            gathering.fail_rest(error)
        self._pulse.forget(stage.key for stage in batch.stages)
        if gathering.holds:
            yield gathering.flush()

    def stop(self) -> None:
        """Have the stages of this worker's device stop at their next beat, and begin no more of them."""
        self._pulse.stop()

    def progress(self) -> Mapping[str, float]:
        """Return how much of each running stage is done, 0 to 1, by key, of those that said so."""
        return self._pulse.progress()

    def close(self) -> None:
        """Send nothing more at any account."""
        for account in self._accounts.values():
            account.close()
        self._accounts.clear()

    def _account(self, name: str) -> AccountWorker:
        """Return the worker of an account, connected once, whichever thread is first."""
        with self._connecting:
            if name not in self._accounts:
                self._accounts[name] = AccountWorker(name, self._settings.accounts[name], self._run)
            return self._accounts[name]


@dataclass(frozen=True, slots=True)
class WorkerLost:
    """A worker died while it ran a batch, and the executor has replaced it.

    Attributes:
        worker: Its name.
        slots: The names of all of its slots.
        why: What is known of its end.
        is_out_of_memory: Whether memory did not suffice, as far as one can see.
        is_out_of_reach: Whether its machine was lost with it, as far as one can see: what it was running is not to blame.
    """

    worker: str
    slots: tuple[str, ...]
    why: str
    is_out_of_reach: bool = False
    is_out_of_memory: bool = False


@dataclass(frozen=True, slots=True)
class WorkerNews:
    """Something about a worker that people should know.

    Attributes:
        text: It, in words.
    """

    text: str


Ended: TypeAlias = Attempt | WorkerLost | WorkerNews
"""What an executor hands back."""


class Executor(Protocol):
    """Runs stage batches on workers. Real implementations: `InlineExecutor` and `RayExecutor`."""

    @property
    def slots(self) -> tuple[Slot, ...]:
        """The workers, and what each runs."""

    def takes(self, slot: str) -> bool:
        """Tell whether the worker of a slot is there to take work."""

    @property
    def is_waiting(self) -> bool:
        """Whether a worker that is not there may still come."""

    def submit(self, worker: str, batch: StageBatch) -> None:
        """Start a batch on an idle worker that is there; returns at once where the worker is another process."""

    def poll(self, timeout: float) -> list[Ended]:
        """Return what has ended, waiting at most `timeout` seconds for the first.

        Raises:
            RunError: Nothing runs, and no worker comes.
        """

    def watch(self, look: Callable[[], None]) -> None:
        """Have `look` called now and then, in this thread, by whatever polls take longer than their timeout."""

    def progress(self) -> Mapping[str, float]:
        """Return how much of each running stage is done, 0 to 1, by key, of those that said so; waits for nobody."""

    def stop(self) -> None:
        """Have stages that say how far they are stop there; returns at once. They end without result or failure.

        What providers were asked for goes on.
        """

    def close(self) -> None:
        """Stop every worker, now."""


INLINE = "inline"
WATCH_SECONDS = 0.25
"""Between two looks of the driver while a batch runs in its own process."""


class InlineExecutor:
    """One worker in this very process, which runs its batch while it is polled. The parameters are those of `Worker`.

    For debugging, for machines without Ray, and for tests: a product, not a mock.
    """

    slots = (Slot(INLINE, WorkerKind.MODEL, is_all=True),)
    is_waiting = False

    def __init__(self, root: Path, settings: RunSettings) -> None:
        """Make the one worker; with GPUs it has the first that this process sees, as many as a worker gets."""
        gpus = math.ceil(machine(settings.resources).devices)
        self._worker = Worker(root, settings, "cuda:0" if gpus else "cpu", gpus, WorkerPulse(self._heard))
        self._under_way: Iterator[tuple[Attempt, ...]] = iter(())
        self._look: Callable[[], None] = lambda: None
        self._watcher, self._quiet_until = 0, 0.0  # the thread of whoever watches
        self._trouble: Exception | None = None  # what the watcher met

    def takes(self, slot: str) -> bool:
        """Tell that it is there."""
        return slot == INLINE

    def submit(self, worker: str, batch: StageBatch) -> None:
        """Remember the batch until the next poll."""
        del worker
        self._under_way = self._worker.run(batch)

    def poll(self, timeout: float) -> list[Ended]:
        """Go on with the batch until some of its stages end, however long it takes; then raise what the watcher met."""
        del timeout
        if self._trouble is not None:
            raise self._trouble
        return list(next(self._under_way, ()))

    def watch(self, look: Callable[[], None]) -> None:
        """Have `look` called a few times a second by stages that say how far they are."""
        self._look, self._watcher = look, threading.get_ident()

    def _heard(self) -> None:
        """Let the watcher look when a stage in its thread has said how far it is, unless it has just looked."""
        if threading.get_ident() == self._watcher and time.monotonic() >= self._quiet_until:
            try:
                self._look()
            except Exception as error:  # noqa: BLE001 - the driver's own, such as a full disk: no fault of the stage
                self._trouble = error
            self._quiet_until = time.monotonic() + WATCH_SECONDS

    def progress(self) -> Mapping[str, float]:
        """Return how much of each running stage is done."""
        return self._worker.progress()

    def stop(self) -> None:
        """Have the running stages stop at their next beat."""
        self._worker.stop()

    def close(self) -> None:
        """Leave the accounts; nothing else outlives this process."""
        self._worker.close()
