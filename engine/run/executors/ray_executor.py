"""Workers as persistent Ray actors. The only module that imports ray.

Ray is never the record: it carries references.

Ray core, not Ray Tune: a cell is a graph with shared stages, not one function. Actor tasks are at-most-once here; a
worker that dies is replaced, and the driver decides what becomes of its stages.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from engine.domain.errors import RunError
from engine.domain.results import Attempt
from engine.domain.stage import StageKind, WorkerKind
from engine.domain.sweep import Resources, RunSettings
from engine.run.executors.workers import Worker, WorkerLost
from engine.run.slots import Slot, account_slots
from engine.run.stages.batch import StageBatch

# Ray reads these once, when it is imported.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
if not os.environ.get("RAY_ADDRESS"):
    # Without this, Ray takes the machine's outward address even when told the loopback one, and listens on all.
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"

import ray

LOOPBACK = "127.0.0.1"
CPU_WORKER = "cpu-worker"
"""It draws samples and judges: no device waits for it."""

OBJECT_STORE_BYTES = 128 * 1024 * 1024
"""References and counts are all that crosses Ray, so its smallest comfortable object store is enough."""

BESIDE = "beside"
"""The concurrency group of what a worker answers while it runs stages: it has a thread of its own."""

PROGRESS_SECONDS = 1.0
"""Between two questions how far a worker is."""


class RayWorker(Worker):
    """A worker that computes on the device that Ray gave it."""

    def __init__(self, root: Path, settings: RunSettings) -> None:
        """Look which GPUs Ray has set aside."""
        super().__init__(root, settings, given_device(ray.get_gpu_ids(), os.environ.get("CUDA_VISIBLE_DEVICES")))


_ACTOR = ray.remote(concurrency_groups={BESIDE: 1})(RayWorker)


def given_device(gpus: Sequence[int | str], visible: str | None) -> str:
    """Return the torch device of a process.

    Args:
        gpus: The GPUs that Ray has set aside for it, by the number or the name that they have on the machine.
        visible: Its CUDA_VISIBLE_DEVICES; Ray sets it to these GPUs unless it is told not to.
    """
    if not gpus:
        return "cpu"
    first, names = str(gpus[0]), visible.split(",") if visible else []
    return f"cuda:{names.index(first) if first in names else first}"


class RayExecutor:
    """Runs stage batches on Ray actors: a worker without a model, as many with one as fit, and one for each account.

    A cluster named by RAY_ADDRESS is joined; otherwise a local one is started, bound to the loopback address, without
    dashboard and usage reports, and stopped again at the end.

    Args:
        root: The run directory, an absolute path on a disk that every worker sees.
        settings: What each worker gets, how many there are, and the accounts at providers.
        adapters: What `Worker.warm_up` takes.

    Attributes:
        slots: The workers, and what each runs.

    Raises:
        RunError: No worker fits this machine.
    """

    def __init__(self, root: Path, settings: RunSettings, adapters: Iterable[tuple[StageKind, str]] = ()) -> None:
        """Start or join Ray and make the workers."""
        self._root, self._settings, self._adapters = root, settings, tuple(adapters)
        self._actors: dict[str, ray.actor.ActorHandle] = {}  # by worker
        self._running: dict[ray.ObjectRefGenerator, str] = {}  # slots
        self._shares: dict[str, Mapping[str, float]] = {}  # how far stages are, by worker
        self._asked: dict[ray.ObjectRef, str] = {}  # workers that have not said how far they are
        self._ask_next = 0.0
        try:
            _start_ray()
            models = [f"model-worker-{index}" for index in range(_worker_count(settings.resources))]
            self.slots = (
                Slot(CPU_WORKER, WorkerKind.CPU),  # first: its samples come before all training
                *(Slot(name, WorkerKind.MODEL) for name in models),
                *(slot for name, account in settings.accounts.items() for slot in account_slots(name, account)),
            )
            # An account's worker has all of that account's slots, because it alone owns the quota.
            self._workers = {slot.name: f"account {slot.account}" if slot.account else slot.name for slot in self.slots}
            for worker in dict.fromkeys(self._workers.values()):
                self._start(worker)
        except BaseException:
            self.close()
            raise

    def _start(self, worker: str) -> None:
        """Start a worker, or another one in its place; one with a model loads its libraries while samples are drawn."""
        own = [slot for slot in self.slots if self._workers[slot.name] == worker]
        size = {"num_cpus": 0.0, "num_gpus": 0.0}
        if own[0].worker is WorkerKind.MODEL:
            resources = self._settings.resources
            size = {"num_cpus": resources.cpus_per_host, "num_gpus": resources.gpus_per_host}
        options = {**size, "max_concurrency": len(own), "max_restarts": 0, "max_task_retries": 0}
        self._actors[worker] = _ACTOR.options(**options).remote(self._root, self._settings)
        if own[0].worker is WorkerKind.MODEL:
            self._actors[worker].warm_up.remote(self._adapters)

    def submit(self, worker: str, batch: StageBatch) -> None:
        """Start a batch on a worker; returns at once."""
        actor = self._actors[self._workers[worker]]
        self._running[actor.run.options(num_returns="streaming").remote(batch)] = worker

    def poll(self, timeout: float) -> list[Attempt | WorkerLost]:
        """Return what has ended, waiting at most `timeout` seconds for the first."""
        found: list[Attempt | WorkerLost] = []
        while self._running:
            ready, _ = ray.wait(list(self._running), num_returns=1, timeout=0 if found else timeout)
            if not ready:
                break
            found += self._next(ready[0])
        return found

    def _next(self, stream: ray.ObjectRefGenerator) -> tuple[Attempt | WorkerLost, ...]:
        """Take the attempts that have ended out of a batch's stream; an exhausted stream is forgotten."""
        try:
            attempts: tuple[Attempt, ...] = ray.get(next(stream))
        except StopIteration:
            del self._running[stream]
            return ()
        except ray.exceptions.RayError as error:
            # Adapters' errors end in the worker, so this is the worker's own death (killed, out of memory).
            return self._replaced(self._workers[self._running[stream]], " ".join(str(error).split()))
        return attempts

    def _replaced(self, worker: str, why: str) -> tuple[WorkerLost, ...]:
        """Put another worker in the place of one that has died, with whatever all of its slots were running."""
        slots = tuple(slot for slot, owner in self._workers.items() if owner == worker)
        self._running = {stream: slot for stream, slot in self._running.items() if slot not in slots}
        ray.kill(self._actors[worker])
        self._start(worker)
        return (WorkerLost(worker, slots, why),)

    def watch(self, look: Callable[[], None]) -> None:
        """Do nothing: a poll takes no longer than its timeout."""

    def progress(self) -> Mapping[str, float]:
        """Return how far running stages are, as their workers said when last asked; asks again about once a second."""
        ready, _ = ray.wait(list(self._asked), num_returns=len(self._asked), timeout=0) if self._asked else ([], [])
        for answer in ready:
            worker = self._asked.pop(answer)
            try:
                self._shares[worker] = ray.get(answer)
            except ray.exceptions.RayError:  # it died; `poll` says so
                self._shares.pop(worker, None)
        if time.monotonic() >= self._ask_next:
            self._ask_next = time.monotonic() + PROGRESS_SECONDS
            busy = {self._workers[slot] for slot in self._running.values()} - set(self._asked.values())
            self._asked |= {
                self._actors[worker].progress.options(concurrency_group=BESIDE).remote(): worker
                for worker in sorted(busy)
            }
        return {key: share for shares in self._shares.values() for key, share in shares.items()}

    def stop(self) -> None:
        """Have every worker stop its stages at their next beat."""
        for actor in self._actors.values():
            actor.stop.options(concurrency_group=BESIDE).remote()

    def close(self) -> None:
        """Kill the workers and leave Ray; a local one stops."""
        try:
            for actor in self._actors.values():
                ray.kill(actor)
        finally:
            ray.shutdown()


def _start_ray() -> None:
    if os.environ.get("RAY_ADDRESS"):
        ray.init(log_to_driver=False, logging_level="ERROR")
        return
    # `local`, or Ray would join whatever cluster somebody once started on this machine.
    ray.init(
        address="local",
        _node_ip_address=LOOPBACK,  # experimental, says Ray; without it the local Ray listens to the network
        object_store_memory=OBJECT_STORE_BYTES,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
    )


def _worker_count(resources: Resources) -> int:
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    fits = sum(_fit_on(node, resources) for node in nodes)
    if fits < 1:
        there = ", ".join(f"{node.get('CPU', 0):g} CPUs and {node.get('GPU', 0):g} GPUs" for node in nodes)
        raise RunError(
            f"no worker fits: one needs {resources.cpus_per_host:g} CPUs and {resources.gpus_per_host:g} GPUs on one"
            f" machine, and there are {there}",
            where="run.resources",
            todo="lower cpus_per_host or gpus_per_host",
        )
    return min(fits, resources.hosts or fits)


def _fit_on(node: Mapping[str, float], resources: Resources) -> int:
    """Workers that fit on one machine: a fraction of a GPU is a share of one, and never of two halves."""
    fits = int(node.get("CPU", 0) // resources.cpus_per_host)
    share = resources.gpus_per_host
    if share > 1:
        fits = min(fits, int(node.get("GPU", 0) // share))
    elif share > 0:
        fits = min(fits, int(node.get("GPU", 0)) * int(1 / share + 1e-9))
    return fits
