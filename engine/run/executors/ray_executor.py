"""Workers as persistent Ray actors. The only module that imports ray.

Ray is never the record: it carries references.

Ray core, not Ray Tune: a cell is a graph with shared stages, not one function. Actor tasks are at-most-once here; a
worker that dies is replaced, and the driver decides what becomes of its stages.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from engine.domain.errors import RunError
from engine.domain.results import Attempt
from engine.domain.stage import WorkerKind
from engine.domain.sweep import Account, Resources, RunSettings
from engine.run.accounts.capacity import MOST_BATCHES, account_capacity
from engine.run.executors.work import WorkerSettings, worker_settings
from engine.run.executors.workers import Needed, Worker, WorkerLost
from engine.run.slots import Slot
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


class RayWorker(Worker):
    """A worker that computes on the device that Ray gave it."""

    def __init__(self, name: str, settings: WorkerSettings) -> None:
        """Look which GPUs Ray has set aside."""
        given = given_device(ray.get_gpu_ids(), os.environ.get("CUDA_VISIBLE_DEVICES"))
        super().__init__(name, replace(settings, device=given))


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
    """Runs stage batches on Ray actors: one worker without a model, and as many with one as fit.

    A cluster named by RAY_ADDRESS is joined; otherwise a local one is started, bound to the loopback address, without
    dashboard and usage reports, and stopped again at the end.

    Args:
        run_root: The run directory, on a disk that every worker sees.
        settings: What each worker gets, how many there are, and the accounts at providers.
        needed: The adapters that the workers will need, as `engine.run.executors.workers.Worker.warm_up` takes them.
    """

    def __init__(self, run_root: Path, settings: RunSettings, needed: tuple[Needed, ...] = ()) -> None:
        """Start or join Ray and make the workers."""
        resources = settings.resources
        self._settings = worker_settings(run_root, settings)
        self._needed = needed
        self._model_worker = {"num_cpus": resources.cpus_per_host, "num_gpus": resources.gpus_per_host}
        self._actors: dict[str, ray.actor.ActorHandle] = {}
        self._accounts: dict[str, str] = {}  # by slot
        self._running: dict[ray.ObjectRefGenerator, str] = {}
        try:
            _start_ray()
            self._slots = self._filled(_worker_count(resources))
        except BaseException:
            self.close()
            raise

    def _filled(self, models: int) -> tuple[Slot, ...]:
        """Make the worker without a model and so many with one, and return their slots."""
        names = [f"model-worker-{index}" for index in range(models)]
        self._actors = {
            name: self._actor(name) for name in (CPU_WORKER, *names)
        }  # its samples come before all training
        for name in names:
            self._warm_up(name)
        hosted = [slot for name, account in self._settings.accounts.items() for slot in self._connect(name, account)]
        return (*(Slot(name, WorkerKind.MODEL) for name in names), Slot(CPU_WORKER, WorkerKind.CPU), *hosted)

    def _connect(self, name: str, account: Account) -> tuple[Slot, ...]:
        """Make the worker of an account, which has all of that account's slots, because it alone owns the quota."""
        slots = account_capacity(name, account)
        self._accounts |= dict.fromkeys([slot.name for slot in slots], name)
        self._actors |= dict.fromkeys([slot.name for slot in slots], self._account_actor())
        return slots

    def _account_actor(self) -> ray.actor.ActorHandle:
        options = {"num_cpus": 0, "max_concurrency": MOST_BATCHES, "max_restarts": 0, "max_task_retries": 0}
        return ray.remote(RayWorker).options(**options).remote("account", self._settings)

    @property
    def slots(self) -> tuple[Slot, ...]:
        """The workers, and what each runs."""
        return self._slots

    def submit(self, worker: str, batch: StageBatch) -> None:
        """Start a batch on a worker; returns at once."""
        self._running[self._actors[worker].run.options(num_returns="streaming").remote(batch)] = worker

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
            return tuple(self._replaced(self._running[stream], " ".join(str(error).split())))
        return attempts

    def _replaced(self, name: str, why: str) -> list[WorkerLost]:
        """Put another worker in the place of one that has died; an account's has several slots."""
        account = self._accounts.get(name)
        slots = [slot for slot, owner in self._accounts.items() if owner == account] if account else [name]
        lost = [slot for slot in slots if slot in self._running.values()]
        self._running = {stream: worker for stream, worker in self._running.items() if worker not in slots}
        ray.kill(self._actors[name])
        if account:
            self._actors |= dict.fromkeys(slots, self._account_actor())
            return [WorkerLost(slot, why) for slot in lost]
        self._actors[name] = self._actor(name)
        if name != CPU_WORKER:
            self._warm_up(name)
        return [WorkerLost(name, why)]

    def _actor(self, name: str) -> ray.actor.ActorHandle:
        size = {"num_cpus": 0, "num_gpus": 0} if name == CPU_WORKER else self._model_worker
        options = {**size, "max_restarts": 0, "max_task_retries": 0}
        return ray.remote(RayWorker).options(**options).remote(name, self._settings)

    def _warm_up(self, name: str) -> None:
        """Have a worker load its libraries, while samples are drawn."""
        self._actors[name].warm_up.remote(self._needed)

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
