"""Hosts as persistent Ray actors. The only module that imports ray. Ray is never the record: it carries references.

Ray core, not Ray Tune: a cell is a graph with shared stages, not one function. Actor tasks are at-most-once here; a
host that dies is replaced, and the driver decides what becomes of its stage.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from engine.domain.errors import RunError
from engine.domain.results import Attempt
from engine.domain.sweep import Resources
from engine.run.hosts import Host, HostLost
from engine.run.worker import StageTask, host_settings

# Ray reads these once, when it is imported.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
if not os.environ.get("RAY_ADDRESS"):
    # Without this, Ray takes the machine's outward address even when told the loopback one, and listens on all.
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"

import ray

LOOPBACK = "127.0.0.1"
OBJECT_STORE_BYTES = 128 * 1024 * 1024
"""References and counts are all that crosses Ray, so its smallest comfortable object store is enough."""


class RayExecutor:
    """Runs tasks on Ray actors.

    A cluster named by RAY_ADDRESS is joined; otherwise a local one is started, bound to the loopback address, without
    dashboard and usage reports, and stopped again at the end.

    Args:
        run_root: The run directory, on a disk that every host sees.
        resources: What each host gets, and how many there are.
    """

    def __init__(self, run_root: Path, resources: Resources) -> None:
        """Start or join Ray and make the hosts."""
        _start_ray()
        self._settings = host_settings(run_root, resources)
        self._options = {
            "num_cpus": resources.cpus_per_host,
            "num_gpus": resources.gpus_per_host,
            "max_restarts": 0,
            "max_task_retries": 0,
        }
        self._actors = {f"host-{index}": self._actor(f"host-{index}") for index in range(_host_count(resources))}
        self._running: dict[ray.ObjectRef, _Running] = {}

    @property
    def hosts(self) -> tuple[str, ...]:
        """The hosts' names."""
        return tuple(self._actors)

    def submit(self, host: str, task: StageTask) -> None:
        """Start a task on a host; returns at once."""
        self._running[self._actors[host].run.remote(task)] = _Running(host, task.stage.key)

    def poll(self, timeout: float) -> list[Attempt | HostLost]:
        """Return what has ended, waiting at most `timeout` seconds for the first."""
        if not self._running:
            return []
        ended, _ = ray.wait(list(self._running), num_returns=1, timeout=timeout)
        if ended and len(self._running) > 1:  # whatever else has ended by now
            ended, _ = ray.wait(list(self._running), num_returns=len(self._running), timeout=0)
        return [self._collect(ref) for ref in ended]

    def _collect(self, ref: ray.ObjectRef) -> Attempt | HostLost:
        running = self._running.pop(ref)
        try:
            attempt: Attempt = ray.get(ref)
        except ray.exceptions.RayError as error:
            # Adapters' errors end in the worker, so this is the host's own death (killed, out of memory).
            self._actors[running.host] = self._actor(running.host)
            return HostLost(running.host, running.key, " ".join(str(error).split()))
        return attempt

    def _actor(self, name: str) -> ray.actor.ActorHandle:
        return ray.remote(Host).options(**self._options).remote(name, self._settings)

    def close(self) -> None:
        """Kill the hosts and leave Ray; a local one stops."""
        for actor in self._actors.values():
            ray.kill(actor)
        ray.shutdown()


@dataclass(frozen=True, slots=True)
class _Running:
    host: str
    key: str


def _start_ray() -> None:
    if os.environ.get("RAY_ADDRESS"):
        ray.init(log_to_driver=False, logging_level="ERROR")
        return
    # `local`, or Ray would join whatever cluster somebody once started on this machine.
    ray.init(
        address="local",
        _node_ip_address=LOOPBACK,
        object_store_memory=OBJECT_STORE_BYTES,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
    )


def _host_count(resources: Resources) -> int:
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    fits = sum(_fit_on(node, resources) for node in nodes)
    if fits < 1:
        there = ", ".join(f"{node.get('CPU', 0):g} CPUs and {node.get('GPU', 0):g} GPUs" for node in nodes)
        ray.shutdown()
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
