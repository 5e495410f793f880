"""What stages take of a worker's memory, before it is taken: how many workers fit on a machine, and what fits on none."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from engine.domain.errors import PlanError
from engine.domain.stage import GenerateWork, Stage, StageKind, TuneWork
from engine.domain.sweep import Resources
from engine.ports import Fit, Machine

GB = 1e9

MARGIN = 1.25
"""What takes up to so many times more than is free is tried: a forecast may be that far off (docs/concepts/memory.md)."""


@dataclass(frozen=True, slots=True)
class Memory:
    """What the local stages that are still to run take.

    Attributes:
        fits: What each takes, by key; stages are left out where it is not known.
        most: The stage of each kind that takes the most.
        machine: What each worker has, with no more workers than fit.
        refusal: Why a stage fits on no worker.
        crowding: Why not as many workers fit as `run.resources.hosts` asks for.
        notes: What may not fit, and is tried.
    """

    fits: Mapping[str, Fit]
    most: Mapping[StageKind, Stage]
    machine: Machine
    refusal: PlanError | None = None
    crowding: PlanError | None = None
    notes: tuple[str, ...] = ()

    def refuse(self, *, is_alone: bool = False) -> None:
        """Refuse to run what does not fit; `is_alone` for one worker, whatever `run.resources.hosts` says.

        Raises:
            PlanError: A stage fits on no worker, or not on as many at a time as the spec asks for.
        """
        if self.refusal is not None:
            raise self.refusal
        if self.crowding is not None and not is_alone:
            raise self.crowding


def memory(stages: Iterable[Stage], fits: Mapping[str, Fit], machine: Machine, resources: Resources) -> Memory:
    """Return what stages take, and how many workers fit with it.

    Args:
        stages: The stages that are still to run.
        fits: What each takes, by key.
        machine: What each worker has, with as many workers as there are cores or GPUs for.
        resources: What the spec asks for.
    """
    stages = list(stages)
    most = _hungriest(stages, fits)
    found, alone = Memory(fits, most, machine, notes=tuple(_unknown(stages, fits))), machine.alone
    if machine.memory is None or alone.memory is None or not most:
        return found
    largest = max(most.values(), key=lambda stage: fits[stage.key].needed)
    fit = fits[largest.key]
    if fit.needed <= machine.memory:
        return found
    if fit.needed > alone.memory * MARGIN:
        what, todo = _refusal(largest, fit, alone.memory, machine), _remedies(fit, machine)
        return replace(found, machine=alone, refusal=PlanError(what, todo=todo))
    if machine.device == "cpu" and resources.hosts is None:
        workers = max(1, alone.memory // fit.needed)
        found = replace(found, machine=replace(machine, workers=workers, memory=alone.memory // workers))
    elif fit.needed > machine.memory * MARGIN:  # never on a GPU, which a worker shares with none
        workers = max(1, alone.memory // fit.needed)
        takes = f"{largest.kind.value} on `{_base(largest)}` takes {gigabytes(fit.needed)}"
        what = f"{takes}, and {machine.workers} workers share {gigabytes(alone.memory)}"
        refusal = PlanError(what, where="run.resources.hosts", todo=f"write {workers}, or leave it out")
        return replace(found, crowding=refusal)
    free = found.machine.memory or 0
    if fit.needed <= free:
        return found
    note = f"memory may not suffice: {_refusal(largest, fit, free, machine)}; a forecast is within 25%, so it is tried"
    return replace(found, notes=(*found.notes, f"{note} ({_remedies(fit, machine)})"))


def _unknown(stages: Iterable[Stage], fits: Mapping[str, Fit]) -> Iterator[str]:
    """Say of which models it is not known what training or asking them takes."""
    bases = dict.fromkeys(
        _base(stage) for stage in stages if isinstance(stage.work, TuneWork | GenerateWork) and stage.key not in fits
    )
    if bases:
        named = ", ".join(f"`{base}`" for base in bases)
        yield f"what {named} takes of memory is not known: nothing is checked, and batches are not cut to fit"


def _hungriest(stages: Iterable[Stage], fits: Mapping[str, Fit]) -> dict[StageKind, Stage]:
    """Return the stage of each kind that takes the most, of those of which it is known."""
    most: dict[StageKind, Stage] = {}
    for stage in stages:
        if stage.key in fits and (stage.kind not in most or fits[stage.key].needed > fits[most[stage.kind].key].needed):
            most[stage.kind] = stage
    return most


def _refusal(stage: Stage, fit: Fit, free: int, machine: Machine) -> str:
    parts = ", ".join(f"{name} {gigabytes(size)}" for name, size in fit.parts)
    where = "of this machine's memory" if machine.device == "cpu" else "on a worker's GPUs"
    return f"{stage.kind.value} on `{_base(stage)}` takes {gigabytes(fit.needed)} ({parts}), and {gigabytes(free)} {where} are free"


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
