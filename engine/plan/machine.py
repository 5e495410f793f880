"""What workers on this machine will have, told without starting torch or Ray."""

from __future__ import annotations

import os
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

from engine.domain.sweep import Resources
from engine.ports import Machine

MIB = 1024**2
GPU_FOLDER = Path("/proc/driver/nvidia/gpus")
"""Has an entry for each GPU of NVIDIA's, wherever its driver is loaded."""

CGROUP = Path("/sys/fs/cgroup")
OWN_GROUPS = Path("/proc/self/cgroup")
VMSTAT = Path("/proc/vmstat")


def machine(resources: Resources) -> Machine:
    """Return what each worker has here, with what is free of memory now shared by all of them.

    Of a cluster's machines nothing is known: not their memory, and of their GPUs only what the spec says. It is taken to have the
    workers that `run.resources.hosts` asks for, or as many as this machine.
    """
    cores, gpus, is_here = cpus(), gpu_memory(), not is_elsewhere()
    threads = max(1, int(resources.cpus_per_host))
    fits = max(1, int(cores // resources.cpus_per_host))
    share = resources.gpus(bool(gpus))
    if share:
        fits = min(fits, max(1, int(len(gpus) / share)))
    workers = min(fits, resources.hosts or fits) if is_here else resources.hosts or fits
    if not share:
        return Machine(
            "cpu", threads, 0.0, workers, free_memory() // workers if is_here else None, resources.generate_batch
        )
    free = [size for size in gpus if size is not None]
    is_known = is_here and gpus and len(free) == len(gpus)
    return Machine(
        "cuda", threads, share, workers, int(min(free) * share) if is_known else None, resources.generate_batch
    )


def is_elsewhere() -> bool:
    """Whether workers will run on a cluster, of whose machines nothing is known here."""
    return os.environ.get("RAY_ADDRESS", "").strip() not in {"", "local"}


def cpus() -> int:
    """Return the cores that this process may use, whole ones: a container may have a share of the machine's time."""
    seen = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([seen, *(int(quota) for quota in _quotas())]))


def free_memory() -> int:
    """Return the bytes of main memory that are free here, under the limit of this process's control group where it has one."""
    free = int(psutil.virtual_memory().available)
    left = [int(limit) - used for limit, used in _limits() if limit != "max"]
    return max(0, min([free, *left]))


def oom_kills() -> int:
    """Return how many processes were killed for want of memory: in this process's control group, or on this machine where it has none.

    It is 0 where nobody says so.
    """
    events = [own / ("memory.oom_control" if is_first else "memory.events") for _, own, is_first in _groups()]
    for place in (*events, VMSTAT):
        try:
            told = dict(line.split(maxsplit=1) for line in place.read_text(encoding="ascii").splitlines())
            return int(told["oom_kill"])
        except (OSError, ValueError, KeyError):
            continue
    return 0


def _quotas() -> list[float]:
    """Return the cores whose time each control group that this process is in may use."""
    found = []
    for top, own, is_first in _groups("cpu"):
        for folder in (own, *own.parents):
            if top not in (folder, *folder.parents):
                break
            try:
                if is_first:
                    quota, period = ((folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
                else:
                    quota, period = (folder / "cpu.max").read_text().split()
                found += [int(quota) / int(period)] if quota != "max" and int(quota) > 0 else []
            except (OSError, ValueError):
                continue
    return found


def _groups(what: str = "memory") -> list[tuple[Path, Path, bool]]:
    """Return the control groups of some resource that this process is in: the highest, its own, and whether they are of version 1."""
    try:
        lines = [line.split(":", 2) for line in OWN_GROUPS.read_text().splitlines()]
    except OSError:
        return []
    tops = [
        (CGROUP / what if names else CGROUP, path) for _, names, path in lines if not names or what in names.split(",")
    ]
    return [(top, top / path.strip("/"), top != CGROUP) for top, path in tops]


def _limits() -> list[tuple[str, int]]:
    """Return (limit, bytes used and not to be reclaimed) of every control group that this process is in."""
    found = []
    for top, own, is_first in _groups():
        files = ("memory.limit_in_bytes", "memory.usage_in_bytes") if is_first else ("memory.max", "memory.current")
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
def gpu_memory() -> tuple[int | None, ...]:
    """Return the bytes that are free on each of NVIDIA's GPUs that this process sees, None where that is not told.

    There are none without a driver, and none for a torch that was built for CPUs alone.
    """
    if not GPU_FOLDER.is_dir() or _is_for_cpus():
        return ()
    command = ["nvidia-smi", "--query-gpu=index,uuid,memory.free", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)  # noqa: S603 - it is fixed
    except (OSError, subprocess.SubprocessError):
        return ()
    return visible_gpus(done.stdout, os.environ.get("CUDA_VISIBLE_DEVICES"))


def _is_for_cpus() -> bool:
    try:
        return version("torch").endswith("+cpu")
    except PackageNotFoundError:
        return False


def visible_gpus(listed: str, visible: str | None) -> tuple[int | None, ...]:
    """Return the free bytes of the GPUs that CUDA shows; None of one that does not tell, as where CPU and GPU share a memory.

    Args:
        listed: Lines of `index, uuid, free MiB`, as nvidia-smi prints them.
        visible: What CUDA_VISIBLE_DEVICES says, if it is set: CUDA shows the GPUs that it names up to the first name that is none.
    """
    cards = [tuple(map(str.strip, line.split(","))) for line in listed.splitlines() if line.count(",") == 2]  # noqa: PLR2004
    free = {(index, uuid): int(size) * MIB if size.isdigit() else None for index, uuid, size in cards}
    if visible is None:
        return tuple(free.values())
    found: list[int | None] = []
    for name in map(str.strip, visible.split(",")):
        named = [size for (index, uuid), size in free.items() if name == index or (name and uuid.startswith(name))]
        if len(named) != 1 and not name.startswith("MIG-"):
            break
        found += named or [None]  # a part of a GPU, which is not listed
    return tuple(found)
