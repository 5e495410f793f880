"""Hosts, or the relays of forked hosts, as persistent Ray actors. The only module that imports ray.

Ray is never the record: it carries references.

Ray core, not Ray Tune: a cell is a graph with shared stages, not one function. Actor tasks are at-most-once here; a
host that dies is replaced, and the driver decides what becomes of its stages.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from engine.domain.errors import RunError
from engine.domain.results import Attempt
from engine.domain.stage import WorkerKind
from engine.domain.sweep import Account, Resources, RunSettings
from engine.run.accounts.capacity import MOST_BATCHES, account_capacity
from engine.run.executors.forks import Forks
from engine.run.executors.hosts import Host, HostLost, Needed
from engine.run.executors.relay import Relay
from engine.run.executors.worker import host_settings
from engine.run.slots import Slot
from engine.run.stages.batch import StageBatch

# Ray reads these once, when it is imported.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
if not os.environ.get("RAY_ADDRESS"):
    # Without this, Ray takes the machine's outward address even when told the loopback one, and listens on all.
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"

import ray

LOOPBACK = "127.0.0.1"
DESK = "desk"
OBJECT_STORE_BYTES = 128 * 1024 * 1024
"""References and counts are all that crosses Ray, so its smallest comfortable object store is enough."""

IDLERS = ("start_monitor", "start_log_monitor", "start_api_server")
"""What starts three processes of a local Ray that nobody uses here: the autoscaler's monitor, what copies logs to the driver,
and the dashboard's server. They take 2 CPU seconds as Ray starts, and closing waits a second for one of them."""

STARTS_RAYLET = "start_ray_processes"
REGISTERS_SECONDS, LOOK_SECONDS = 5.0, 0.02
"""How long a raylet's registration may take before Ray's own waiting begins, and how often to look."""


class RayExecutor:
    """Runs batchs on Ray actors: one desk, and as many model hosts as fit.

    A cluster named by RAY_ADDRESS is joined; otherwise a local one is started, bound to the loopback address, without
    dashboard and usage reports, and stopped again at the end.

    Args:
        run_root: The run directory, on a disk that every host sees.
        settings: What each host gets, how many there are, and the accounts at providers.
        needed: The adapters that the hosts will need, as `engine.run.executors.hosts.Host.warm_up` takes them.
        forks: Where hosts are forked from; None to have the actors be hosts themselves.
    """

    def __init__(
        self, run_root: Path, settings: RunSettings, needed: tuple[Needed, ...] = (), forks: Forks | None = None
    ) -> None:
        """Start or join Ray and make the hosts."""
        resources = settings.resources
        self._forks = forks
        self._settings = host_settings(run_root, settings)
        self._needed = needed
        self._model_host = {"num_cpus": resources.cpus_per_host, "num_gpus": resources.gpus_per_host}
        self._actors: dict[str, ray.actor.ActorHandle] = {}
        self._accounts: dict[str, str] = {}  # by slot
        self._running: dict[ray.ObjectRefGenerator, str] = {}
        try:
            _start_ray()
            self._slots = self._filled(_host_count(resources))
        except BaseException:
            self.close()
            raise

    def _filled(self, hosts: int) -> tuple[Slot, ...]:
        """Make the desk and so many hosts, and return their slots."""
        names = [f"host-{index}" for index in range(hosts)]
        self._actors = {name: self._actor(name) for name in (DESK, *names)}  # its samples come before all training
        for name in names:
            self._occupy(name)
        hosted = [slot for name, account in self._settings.accounts.items() for slot in self._connect(name, account)]
        return (*(Slot(name, WorkerKind.MODEL) for name in names), Slot(DESK, WorkerKind.CPU), *hosted)

    def _connect(self, name: str, account: Account) -> tuple[Slot, ...]:
        """Make the host of an account, which sits in all of that account's slots, because it alone owns the quota."""
        slots = account_capacity(name, account)
        self._accounts |= dict.fromkeys([slot.name for slot in slots], name)
        self._actors |= dict.fromkeys([slot.name for slot in slots], self._account_actor())
        return slots

    def _account_actor(self) -> ray.actor.ActorHandle:
        options = {"num_cpus": 0, "max_concurrency": MOST_BATCHES, "max_restarts": 0, "max_task_retries": 0}
        return ray.remote(Host).options(**options).remote("account", self._settings)

    @property
    def slots(self) -> tuple[Slot, ...]:
        """The hosts, and what each runs."""
        return self._slots

    def submit(self, host: str, batch: StageBatch) -> None:
        """Start a batch on a host; returns at once."""
        forked = self._forks is not None and host in self._forks
        sent = Forks.packed(batch) if forked else batch
        self._running[self._actors[host].run.options(num_returns="streaming").remote(sent)] = host

    def poll(self, timeout: float) -> list[Attempt | HostLost]:
        """Return what has ended, waiting at most `timeout` seconds for the first."""
        found: list[Attempt | HostLost] = []
        while self._running:
            ready, _ = ray.wait(list(self._running), num_returns=1, timeout=0 if found else timeout)
            if not ready:
                break
            found += self._next(ready[0])
        return found or self._vanished()

    def _vanished(self) -> list[Attempt | HostLost]:
        """Replace hosts that ended without a word, perhaps before they listened: their relays would wait for them."""
        if self._forks is None:
            return []
        endings = {name: self._forks.ending(name) for name in self._running.values()}
        died = [self._replaced(name, ending) for name, ending in endings.items() if ending is not None]
        return [lost for several in died for lost in several]

    def _next(self, stream: ray.ObjectRefGenerator) -> tuple[Attempt | HostLost, ...]:
        """Take the attempts that have ended out of a batch's stream; an exhausted stream is forgotten."""
        try:
            attempts: tuple[Attempt, ...] | bytes = ray.get(next(stream))
        except StopIteration:
            del self._running[stream]
            return ()
        except ray.exceptions.RayError as error:
            # Adapters' errors end in the worker, so this is the host's own death (killed, out of memory).
            return tuple(self._replaced(self._running[stream], " ".join(str(error).split())))
        return attempts if isinstance(attempts, tuple) else Forks.unpacked(attempts)

    def _replaced(self, name: str, why: str) -> list[HostLost]:
        """Put another host in the place of one that has died; an account's sits in several slots."""
        account = self._accounts.get(name)
        slots = [slot for slot, owner in self._accounts.items() if owner == account] if account else [name]
        lost = [slot for slot in slots if slot in self._running.values()]
        self._running = {stream: host for stream, host in self._running.items() if host not in slots}
        ray.kill(self._actors[name])
        if account:
            self._actors |= dict.fromkeys(slots, self._account_actor())
            return [HostLost(slot, why) for slot in lost]
        ending = None if self._forks is None else self._forks.stop(name)
        self._actors[name] = self._actor(name)
        self._occupy(name)
        return [HostLost(name, ending or why)]

    def _actor(self, name: str) -> ray.actor.ActorHandle:
        size = {"num_cpus": 0, "num_gpus": 0} if name == DESK else self._model_host
        options = {**size, "max_restarts": 0, "max_task_retries": 0}
        if name != DESK and self._forks is not None:
            return ray.remote(Relay).options(**options).remote(self._forks.line(name))
        return ray.remote(Host).options(**options).remote(name, self._settings)

    def _occupy(self, name: str) -> None:
        """Have a model host come, or load its libraries, while the desk draws the samples."""
        if self._forks is None:
            self._actors[name].warm_up.remote(self._needed)
        else:
            self._forks.fork(name, self._settings)

    def close(self) -> None:
        """Kill the hosts and leave Ray; a local one stops."""
        try:
            for actor in self._actors.values():
                ray.kill(actor)
        finally:
            if self._forks is not None:
                self._forks.close()
            ray.shutdown()


def _start_ray() -> None:
    if os.environ.get("RAY_ADDRESS"):
        ray.init(log_to_driver=False, logging_level="ERROR")
        return
    with _core_alone():
        # `local`, or Ray would join whatever cluster somebody once started on this machine.
        ray.init(
            address="local",
            _node_ip_address=LOOPBACK,
            object_store_memory=OBJECT_STORE_BYTES,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
        )


@contextmanager
def _core_alone() -> Iterator[None]:
    """Have Ray start without its `IDLERS` while the block runs, and see at once that its raylet is there.

    It has no public switches for this; where its private names are others, it starts as it always does.
    """
    node = getattr(getattr(getattr(ray, "_private", None), "node", None), "Node", None)
    changes: dict[str, Callable[..., None]] = {name: lambda *_, **__: None for name in IDLERS}
    if start := getattr(node, STARTS_RAYLET, None):
        changes[STARTS_RAYLET] = _seen_at_once(start)
    kept = {name: getattr(node, name) for name in changes if hasattr(node, name)}
    try:
        for name in kept:
            setattr(node, name, changes[name])
        yield
    finally:
        for name, start in kept.items():
            setattr(node, name, start)


def _seen_at_once(start: Callable[..., None]) -> Callable[..., None]:
    """Return what starts a raylet and waits for it to register: Ray's own next look would be a second later."""

    def started(node: Any, *arguments: Any, **options: Any) -> None:
        start(node, *arguments, **options)
        deadline = time.monotonic() + REGISTERS_SECONDS
        with suppress(Exception):  # Ray itself looks next, and says what is wrong
            while not node.get_gcs_client().get_all_node_info() and time.monotonic() < deadline:
                time.sleep(LOOK_SECONDS)

    return started


def _host_count(resources: Resources) -> int:
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    fits = sum(_fit_on(node, resources) for node in nodes)
    if fits < 1:
        there = ", ".join(f"{node.get('CPU', 0):g} CPUs and {node.get('GPU', 0):g} GPUs" for node in nodes)
        raise RunError(
            f"no host fits: one needs {resources.cpus_per_host:g} CPUs and {resources.gpus_per_host:g} GPUs on one"
            f" machine, and there are {there}",
            where="run.resources",
            todo="lower cpus_per_host or gpus_per_host",
        )
    return min(fits, resources.hosts or fits)


def _fit_on(node: Mapping[str, float], resources: Resources) -> int:
    """Hosts that fit on one machine: a fraction of a GPU is a share of one, and never of two halves."""
    fits = int(node.get("CPU", 0) // resources.cpus_per_host)
    share = resources.gpus_per_host
    if share > 1:
        fits = min(fits, int(node.get("GPU", 0) // share))
    elif share > 0:
        fits = min(fits, int(node.get("GPU", 0)) * int(1 / share + 1e-9))
    return fits
