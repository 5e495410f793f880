"""What workers on this machine will have, told without starting torch or Ray."""

from __future__ import annotations

import os
import subprocess
from functools import cache
from pathlib import Path

import psutil

from engine.domain.sweep import Resources
from engine.ports import Machine

MIB = 1024**2
GPU_FOLDER = Path("/proc/driver/nvidia/gpus")
"""Has an entry for each GPU of NVIDIA's, wherever its driver is loaded."""

CGROUP = Path("/sys/fs/cgroup")
OWN_GROUPS = Path("/proc/self/cgroup")


def machine(resources: Resources) -> Machine:
    """Return what each worker has here, with what is free of memory now shared by all of them.

    Of a cluster's machines nothing is known: not their memory, and of their GPUs only what the spec says.
    """
    cores, gpus, is_here = cpus(), gpu_memory(), not is_elsewhere()
    threads = max(1, int(resources.cpus_per_host))
    fits = max(1, int(cores // resources.cpus_per_host))
    share = resources.gpus(bool(gpus))
    if share:
        fits = min(fits, max(1, int(len(gpus) / share)))
    workers = min(fits, resources.hosts or fits)
    if not share:
        return Machine("cpu", threads, 0.0, workers, free_memory() // workers if is_here else None)
    memory = int(min(gpus) * share) if gpus and is_here else None
    return Machine("cuda", threads, share, workers, memory)


def is_elsewhere() -> bool:
    """Whether workers will run on a cluster, of whose machines nothing is known here."""
    return os.environ.get("RAY_ADDRESS", "").strip() not in {"", "local"}


def cpus() -> int:
    """Return the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def free_memory() -> int:
    """Return the bytes of main memory that are free here, under the limit of this process's control group where it has one."""
    free = int(psutil.virtual_memory().available)
    left = [int(limit) - used for limit, used in _limits() if limit != "max"]
    return max(0, min([free, *left]))


def _limits() -> list[tuple[str, int]]:
    """Return (limit, bytes used and not to be reclaimed) of every control group that this process is in."""
    try:
        lines = OWN_GROUPS.read_text().splitlines()
    except OSError:
        return []
    found = []
    for _, names, path in (line.split(":", 2) for line in lines):
        if names and "memory" not in names.split(","):
            continue
        top = CGROUP / "memory" if names else CGROUP  # versions 1 and 2
        files = ("memory.limit_in_bytes", "memory.usage_in_bytes") if names else ("memory.max", "memory.current")
        own = top / path.strip("/")
        for folder in (own, *own.parents):
            if top not in (folder, *folder.parents):
                break
            try:
                limit, used = ((folder / name).read_text().strip() for name in files)
                stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
                reclaimed = sum(int(stat.get(name, 0)) for name in ("inactive_file", "active_file"))
                found.append((limit, int(used) - reclaimed))
            except (OSError, ValueError):
                continue
    return found


@cache
def gpu_memory() -> tuple[int, ...]:
    """Return the bytes of each of NVIDIA's GPUs that this process sees; none where there is no driver."""
    if not GPU_FOLDER.is_dir():
        return ()
    command = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)  # noqa: S603 - it is fixed
    except (OSError, subprocess.SubprocessError):
        return ()
    found = [int(float(line)) * MIB for line in done.stdout.split("\n") if line.strip()]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return tuple(found if visible is None else found[: len([name for name in visible.split(",") if name])])
