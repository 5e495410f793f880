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


def machine(resources: Resources) -> Machine:
    """Return what each worker has here, with what is free of memory now shared by all of them."""
    cores, gpus = cpus(), gpu_memory()
    threads = max(1, int(resources.cpus_per_host))
    fits = max(1, int(cores // resources.cpus_per_host))
    share = resources.gpus(bool(gpus))
    if share:
        fits = min(fits, max(1, int(len(gpus) / share)))
    workers = min(fits, resources.hosts or fits)
    if not share:
        return Machine("cpu", threads, 0.0, workers, free_memory() // workers)
    memory = int(min(gpus) * share) if gpus else None
    return Machine("cuda", threads, share, workers, memory)


def cpus() -> int:
    """Return the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def free_memory() -> int:
    """Return the bytes of main memory that are free here, under the limit of this process's control group where it has one."""
    free = int(psutil.virtual_memory().available)
    left = [int(limit) - used for limit, used in _limits() if limit != "max"]
    return max(0, min([free, *left]))


def _limits() -> list[tuple[str, int]]:
    """Return (limit, bytes used and not to be reclaimed) of every control group, version 2, that this process is in."""
    try:
        own = Path("/proc/self/cgroup").read_text().partition("::")[2].strip().strip("/")
    except OSError:
        return []
    found = []
    for folder in (CGROUP / own, *(CGROUP / own).parents):
        if CGROUP not in (folder, *folder.parents):
            break
        try:
            limit = (folder / "memory.max").read_text().strip()
            used = int((folder / "memory.current").read_text())
            lines = (line.split() for line in (folder / "memory.stat").read_text().splitlines())
            stat = {name: int(value) for name, value in lines}
        except (OSError, ValueError):
            continue
        found.append((limit, used - stat.get("inactive_file", 0) - stat.get("active_file", 0)))
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
