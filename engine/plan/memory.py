"""What stages take of a worker's memory, before it is taken: how many workers fit on a machine, and what fits on none."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from engine.domain.errors import PlanError
from engine.domain.stage import GenerateWork, Stage, StageKind, TuneWork
from engine.domain.sweep import Resources
from engine.ports import Fit, Machine

GB = 1e9


@dataclass(frozen=True, slots=True)
class Memory:
    """What the local stages that are still to run take.

    Attributes:
        fits: What each takes, by key; stages are left out where it is not known.
        most: The stage of each kind that takes the most.
        machine: What each worker has, with no more workers than fit.
    """

    fits: Mapping[str, Fit]
    most: Mapping[StageKind, Stage]
    machine: Machine


def memory(stages: Iterable[Stage], fits: Mapping[str, Fit], machine: Machine, resources: Resources) -> Memory:
    """Return what stages take, and how many workers fit with it.

    Args:
        stages: The stages that are still to run.
        fits: What each takes, by key.
        machine: What each worker has, with as many workers as there are cores or GPUs for.
        resources: What the spec asks for.

    Raises:
        PlanError: A stage fits on no worker; or not on as many at a time as `run.resources.hosts` asks for.
    """
    most: dict[StageKind, Stage] = {}
    for stage in stages:
        if stage.key in fits and (stage.kind not in most or fits[stage.key].needed > fits[most[stage.kind].key].needed):
            most[stage.kind] = stage
    if machine.memory is None or not most:
        return Memory(fits, most, machine)
    largest = max(most.values(), key=lambda stage: fits[stage.key].needed)
    needed = fits[largest.key].needed
    whole = machine.memory * machine.workers if machine.device == "cpu" else machine.memory
    if needed > whole:
        raise PlanError(
            _refusal(largest, fits[largest.key], whole, machine), todo=_remedies(fits[largest.key], machine)
        )
    if needed <= machine.memory:
        return Memory(fits, most, machine)
    workers = whole // needed
    if resources.hosts is not None:
        what = (
            f"{largest.kind.value} on `{_base(largest)}` takes {gigabytes(needed)}, and {machine.workers} workers share"
        )
        raise PlanError(
            f"{what} {gigabytes(whole)}", where="run.resources.hosts", todo=f"write {workers}, or leave it out"
        )
    return Memory(fits, most, replace(machine, workers=workers, memory=whole // workers))


def _refusal(stage: Stage, fit: Fit, whole: int, machine: Machine) -> str:
    parts = ", ".join(f"{name} {gigabytes(size)}" for name, size in fit.parts)
    where = "of this machine's memory" if machine.device == "cpu" else "on a worker's GPUs"
    return f"{stage.kind.value} on `{_base(stage)}` takes {gigabytes(fit.needed)} ({parts}), and {gigabytes(whole)} {where} are free"


def _remedies(fit: Fit, machine: Machine) -> str:
    helps = f"any of these would make it fit: {', '.join(fit.remedies)}" if fit.remedies else ""
    if machine.device != "cpu":
        slower = "`run.resources.gpus_per_host: 0` computes in main memory, slowly"
        return f"{helps}; {slower}" if helps else slower
    return helps or "choose a smaller model, or a machine with more memory"


def _base(stage: Stage) -> str:
    work = stage.work
    return str(work.base.use) if isinstance(work, TuneWork | GenerateWork) else stage.adapter


def gigabytes(size: int) -> str:
    """Return bytes as people read them.

    >>> gigabytes(2_640_000_000), gigabytes(47_000_000)
    ('2.6 GB', '0.05 GB')
    """
    return f"{size / GB:.1f} GB" if size >= GB / 10 else f"{size / GB:.2f} GB"
