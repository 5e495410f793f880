"""Workers as persistent Ray actors.

Ray is never the record: it carries references.

Ray core, not Ray Tune: a cell is a graph with shared stages, not one function. Actor tasks are at-most-once here; a
worker that dies is replaced, and the driver decides what becomes of its stages.

A worker takes work from when it has said hello: an actor that no node has resources for, or whose node is gone, never does.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from pathlib import Path

from engine.domain.errors import RunError, RunLostError
from engine.domain.results import Attempt
from engine.domain.stage import StageKind, WorkerKind
from engine.domain.sweep import Resources, RunSettings
from engine.plan.machine import oom_kills
from engine.run.executors.absences import Absences
from engine.run.executors.ray_cluster import Cluster
from engine.run.executors.workers import Ended, Worker, WorkerLost, WorkerNews
from engine.run.slots import Slot, account_slots
from engine.run.stages.batch import StageBatch

# isort: split
import ray  # after `ray_cluster`, which sets the environment that Ray reads as it is imported
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

CPU_WORKER = "cpu-worker"
"""It draws samples and judges: no device waits for it."""

LOCAL_SECONDS = 300.0
"""How long a worker may be missed on a Ray of our own, which has resources for it: the machine is only slow."""

BESIDE = "beside"
"""The concurrency group of what a worker answers while it runs stages: it has a thread of its own."""

PROGRESS_SECONDS = 1.0
"""Between two questions how far a worker is."""


class RayWorker(Worker):
    """A worker that computes on the devices that Ray gave it."""

    def __init__(self, root: Path, settings: RunSettings) -> None:
        """Look which GPUs Ray has set aside."""
        gpus = ray.get_gpu_ids()
        super().__init__(root, settings, given_device(gpus, os.environ), len(gpus))

    def hello(self) -> tuple[str, bool]:
        """Return the id of the node that it is on, and whether the run directory is there."""
        return ray.get_runtime_context().get_node_id(), self._run.state.exists()


_ACTOR = ray.remote(concurrency_groups={BESIDE: 1})(RayWorker)


def given_device(gpus: Sequence[int | str], environment: MutableMapping[str, str]) -> str:
    """Have a process see no GPU but those that it was given, and return its torch device: the first of them.

    Ray does so, too, unless it is told to leave CUDA_VISIBLE_DEVICES alone. Libraries use what they see.

    Args:
        gpus: The GPUs that Ray has set aside for it, by the number or the name that they have on the machine.
        environment: That of the process, before it has started torch.
    """
    if not gpus:
        return "cpu"
    environment["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, gpus))
    return "cuda:0"


class RayExecutor:
    """Runs stage batches on Ray actors: a worker without a model, as many with one as fit, and one for each account.

    A cluster named by RAY_ADDRESS is joined; otherwise a local one is started, bound to the loopback address, without
    dashboard and usage reports, and stopped again at the end.

    The workers that need no resources are kept on this process's node: the loss of any other node leaves them alone, and with this
    one the run ends anyhow. An account's worker finds a local server there, and the locks of its journal.

    Args:
        root: The run directory, an absolute path on a disk that every worker sees.
        settings: What each worker gets, how many there are, and the accounts at providers.
        adapters: What `Worker.warm_up` takes.

    Attributes:
        slots: The workers, and what each runs.

    Raises:
        RunError: There is no such cluster, Ray does not start, or no worker fits.
    """

    def __init__(self, root: Path, settings: RunSettings, adapters: Iterable[tuple[StageKind, str]] = ()) -> None:
        """Start or join Ray and make the workers."""
        self._root, self._settings, self._adapters = root, settings, tuple(adapters)
        self._actors: dict[str, ray.actor.ActorHandle] = {}  # by worker
        self._running: dict[ray.ObjectRefGenerator, str] = {}  # slots
        self._shares: dict[str, Mapping[str, float]] = {}  # how far stages are, by worker
        self._asked: dict[ray.ObjectRef, str] = {}  # workers that have not said how far they are
        self._ask_next = 0.0
        self._hellos: dict[ray.ObjectRef, str] = {}  # workers
        self._loading: dict[ray.ObjectRef, str] = {}  # workers
        self._nodes: dict[str, str] = {}  # where workers are
        self._cluster = Cluster()
        patience = LOCAL_SECONDS if self._cluster.is_local else settings.resources.placement_seconds
        self._absent = Absences(patience)
        self._oom_kills: dict[str, int] = {}  # when workers were last given something
        try:
            nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
            self._gpus = settings.resources.gpus(any(node.get("GPU", 0) >= 1 for node in nodes))
            models = [f"model-worker-{index}" for index in range(self._worker_count(nodes, settings.resources))]
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
        is_model = own[0].worker is WorkerKind.MODEL
        if is_model:
            place = {"num_cpus": self._settings.resources.cpus_per_host, "num_gpus": self._gpus}
        else:
            here = NodeAffinitySchedulingStrategy(self._cluster.node, soft=True)
            place = {"num_cpus": 0.0, "num_gpus": 0.0, "scheduling_strategy": here}
        options = {**place, "max_concurrency": len(own), "max_restarts": 0, "max_task_retries": 0}
        self._actors[worker] = _ACTOR.options(**options).remote(self._root, self._settings)
        self._greet(worker, is_started=True)
        if is_model:
            self._loading[self._actors[worker].warm_up.remote(self._adapters)] = worker

    def _greet(self, worker: str, *, is_started: bool = False) -> None:
        """Ask whether a worker is there; until it says so, it takes no work."""
        self._absent.miss(worker, is_started=is_started)
        self._hellos[self._actors[worker].hello.options(concurrency_group=BESIDE).remote()] = worker

    def takes(self, slot: str) -> bool:
        """Tell whether the worker of a slot is there."""
        return self._workers[slot] not in self._absent

    @property
    def is_waiting(self) -> bool:
        """Whether a worker may still come."""
        return any(self._absent)

    def submit(self, worker: str, batch: StageBatch) -> None:
        """Start a batch on a worker; returns at once."""
        actor = self._actors[self._workers[worker]]
        self._oom_kills[self._workers[worker]] = oom_kills()
        self._running[actor.run.options(num_returns="streaming").remote(batch)] = worker

    def poll(self, timeout: float) -> list[Ended]:
        """Return what has ended or was heard of workers, waiting at most `timeout` seconds for the first.

        Raises:
            RunLostError: The cluster is gone; or nothing runs, and the workers that are missed have not come in time, or cannot see
                the run directory.
        """
        self._cluster.check()
        found: list[Ended] = []
        is_heard = False
        while awaited := [*self._running, *self._hellos, *self._loading]:
            ready, _ = ray.wait(awaited, num_returns=1, timeout=0 if is_heard else timeout)
            if not ready:
                break
            is_heard = True
            found += self._next(ready[0]) if ready[0] in self._running else self._heard(ready[0])
        if not awaited and not is_heard:
            time.sleep(timeout)
        for worker in self._absent.due():
            self._start(worker)
        news = self._absent.late(is_idle=not is_heard and not self._running)
        return [*found, *map(WorkerNews, news)]

    def _next(self, stream: ray.ObjectRefGenerator) -> tuple[Ended, ...]:
        """Take the attempts that have ended out of a batch's stream; an exhausted stream is forgotten."""
        try:
            attempts: tuple[Attempt, ...] = ray.get(next(stream))
        except StopIteration:
            del self._running[stream]
            return ()
        except ray.exceptions.RayError as error:
            # Adapters' errors end in the worker, so this is the worker's own death (killed, out of memory).
            return self._replaced(self._workers[self._running[stream]], error)
        return attempts

    def _replaced(self, worker: str, error: Exception) -> tuple[Ended, ...]:
        """Put another worker in the place of one that has died, with whatever all of its slots were running."""
        slots = tuple(slot for slot, owner in self._workers.items() if owner == worker)
        self._running = {stream: slot for stream, slot in self._running.items() if slot not in slots}
        self._forget(worker)
        self._start(worker)
        node = self._nodes.pop(worker, "")
        self._doubt(node)
        # Ray needs ten seconds to call a node dead; until then its actors are only unavailable.
        is_out_of_reach = isinstance(error, ray.exceptions.ActorUnavailableError) or not _is_alive(node)
        is_killed = oom_kills() > self._oom_kills.get(worker, oom_kills())
        is_cramped = isinstance(error, ray.exceptions.OutOfMemoryError) or is_killed
        return (WorkerLost(worker, slots, _words(error), is_out_of_reach, is_cramped),)

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

    def _forget(self, worker: str) -> None:
        """Expect nothing more of a worker's actor."""
        self._hellos = {hello: other for hello, other in self._hellos.items() if other != worker}
        self._loading = {loading: other for loading, other in self._loading.items() if other != worker}
        ray.kill(self._actors[worker])

    def _doubt(self, node: str) -> None:
        """Ask the idle workers of a node whether they are still there: the node may have gone, and not one worker of it."""
        busy = {self._workers[slot] for slot in self._running.values()}
        for worker, place in self._nodes.items():
            if place == node and worker not in busy and worker not in self._absent:
                self._greet(worker)

    def _heard(self, answer: ray.ObjectRef) -> tuple[Ended, ...]:
        """Take a worker's word that it is there or has loaded its libraries, or that of its death."""
        is_hello = answer in self._hellos
        worker = self._hellos.pop(answer) if is_hello else self._loading.pop(answer)
        try:
            said = ray.get(answer)
        except ray.exceptions.RayTaskError:
            # Libraries that cannot be loaded: the stages that need them say so. Or a folder that it may not look at.
            return self._arrived(worker, "", is_seen=False) if is_hello else ()
        except ray.exceptions.RayError as error:
            # One that was there before is as lost as one that ran something: what it held in memory is gone.
            is_early = worker in self._absent and worker not in self._nodes
            return self._ended_early(worker, _words(error)) if is_early else self._replaced(worker, error)
        return self._arrived(worker, said[0], is_seen=said[1]) if is_hello else ()

    def _arrived(self, worker: str, node: str, *, is_seen: bool) -> tuple[Ended, ...]:
        if not is_seen:
            what = f"{worker} is on a machine that does not see the run directory"
            todo = "put it on a disk that every node of the cluster sees under the same path, with --out"
            raise RunLostError(what, where=str(self._root), todo=todo)
        self._nodes[worker] = node
        return _news(self._absent.came(worker))

    def _ended_early(self, worker: str, why: str) -> tuple[Ended, ...]:
        """Note that a worker ended before it was there; it is started again after a pause."""
        self._forget(worker)
        return _news(self._absent.ended(worker, why))

    def close(self) -> None:
        """Kill the workers and leave Ray; a local one stops."""
        try:
            if not self._cluster.is_gone:  # or each would wait for it
                for actor in self._actors.values():
                    ray.kill(actor)
        finally:
            self._cluster.close()

    def _worker_count(self, nodes: Sequence[Mapping[str, float]], resources: Resources) -> int:
        """Return how many workers with a model there are: those that fit, or `hosts`; a cluster may grow until they all fit."""
        if resources.hosts and not self._cluster.is_local:
            return resources.hosts
        fits = sum(_fit_on(node, resources.cpus_per_host, self._gpus) for node in nodes)
        if fits < 1:
            there = ", ".join(f"{node.get('CPU', 0):g} CPUs and {node.get('GPU', 0):g} GPUs" for node in nodes)
            raise RunError(
                f"no worker fits: one needs {resources.cpus_per_host:g} CPUs and {self._gpus:g} GPUs on one machine, and there are"
                f" {there}",
                where="run.resources",
                todo="lower cpus_per_host or gpus_per_host; on a cluster that grows on demand, say how many with hosts",
            )
        return min(fits, resources.hosts or fits)


def _is_alive(node: str) -> bool:
    return any(one["NodeID"] == node and one["Alive"] for one in ray.nodes())


def _words(error: Exception) -> str:
    return " ".join(str(error).split())


def _news(text: str) -> tuple[WorkerNews, ...]:
    return (WorkerNews(text),) if text else ()


def _fit_on(node: Mapping[str, float], cpus: float, gpus: float) -> int:
    """Workers that fit on one machine: a fraction of a GPU is a share of one, and never of two halves."""
    fits = int(node.get("CPU", 0) // cpus)
    if gpus > 1:
        fits = min(fits, int(node.get("GPU", 0) // gpus))
    elif gpus > 0:
        fits = min(fits, int(node.get("GPU", 0)) * int(1 / gpus + 1e-9))
    return fits
