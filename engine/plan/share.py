"""Which stages a worker may do together, and what that saves. Nothing here changes a stage's key.

- A *training run* has several checkpoints: tune stages that differ in length alone, where the fine-tuner says that a longer
  run passes exactly through the shorter ones.
- A *batch group* holds the stages that may be in one batch: tune stages that train in one *pack* (several LoRA runs on one base
  model, as one batch), generate stages that decode
  together, judge stages of one judge and benchmark. A worker takes a *stage batch* from one group at a time.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import pairwise
from types import MappingProxyType

from engine import registry
from engine.domain.adapters import Kind, Use
from engine.domain.cost import Range
from engine.domain.stage import GenerateWork, JudgeWork, RowsWork, ScreenWork, Stage, TuneWork, WeightsWork, layers
from engine.domain.sweep import Length
from engine.plan.fingerprint import KEY_DIGITS, canonical
from engine.ports import Sharing

ANY_LENGTH = Length(epochs=None)
"""Stands for the length in what the checkpoints of one training run have in common."""


@dataclass(frozen=True, slots=True)
class Groups:
    """Which stages go together.

    Attributes:
        batch_groups: Batch group by stage key; stages of one group may be in one batch.
        checkpoints: By tune stage key, the keys of all checkpoints of its training run, the shortest first.
        runs: By tune stage key, the name of its training run, the same in every plan that has a checkpoint of it.
        prefix_blocked: By tune stage key, the setting because of which it is no checkpoint of a longer training run of this plan.
        pack_blocked: By tune stage key, the field that keeps it from training in a pack.
        accounts: By stage key, the account that it runs on; stages that need none are left out.
    """

    batch_groups: Mapping[str, str]
    checkpoints: Mapping[str, tuple[str, ...]]
    runs: Mapping[str, str]
    prefix_blocked: Mapping[str, str]
    pack_blocked: Mapping[str, str]
    accounts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Savings:
    """What sharing saves in the tune stages that are still to run.

    Attributes:
        tunes: Tune stages to run.
        training_runs: Training runs that they take.
        going_on: Of those, the runs that go on from where an earlier one ended.
        steps: Optimizer steps that will be taken.
        steps_alone: Optimizer steps that separate runs would take.
        prefix_blocked: Number of tune stages that share no training run because of a field, by field.
        pack_blocked: Number of tune stages that train alone because of a field, by field.
    """

    tunes: int
    training_runs: int
    going_on: int
    steps: int
    steps_alone: int
    prefix_blocked: Mapping[str, int]
    pack_blocked: Mapping[str, int]


def group(
    stages: Mapping[str, Stage],
    forecasts: Mapping[str, Range],
    accounts: Mapping[str, str] = MappingProxyType({}),
) -> Groups:
    """Return which stages go together.

    Args:
        stages: Every distinct stage of a plan by key.
        forecasts: Forecast by stage key; the optimizer steps order the checkpoints of a training run.
        accounts: Account by stage key, of those that need one.
    """
    tunes = _Tunes(stages)
    names: dict[object, str] = {}
    batch_groups = {}
    for key, stage in stages.items():
        work = stage.work
        what = tunes.batch_group(stage, work) if isinstance(work, TuneWork) else _batch_group(stage, stages)
        batch_groups[key] = names.setdefault(what, f"{stage.kind.value} {stage.adapter} {len(names)}")
    checkpoints: dict[str, tuple[str, ...]] = {}
    for members in tunes.members.values():
        ordered = tuple(sorted(members, key=lambda key: forecasts[key].expected.optimizer_steps))
        checkpoints |= dict.fromkeys(members, ordered)
    return Groups(batch_groups, checkpoints, tunes.runs, tunes.prefix_blocked(), tunes.pack_blocked, accounts)


def _batch_group(stage: Stage, stages: Mapping[str, Stage]) -> object:
    """Return what a stage must have in common with others to be in one batch with them."""
    work = stage.work
    if isinstance(work, GenerateWork):
        below = layers(stage.need("model"), stages)[:-1]
        return stage.kind, work.use, work.base, work.decoding, below
    if isinstance(work, JudgeWork | ScreenWork):
        return stage.kind, work.use, work.benchmark
    if isinstance(work, WeightsWork):
        return stage.kind, work.use, work.base
    return stage.kind


class _Tunes:
    """Sorts tune stages; what they have in common is worked out once."""

    def __init__(self, stages: Mapping[str, Stage]) -> None:
        self.members: dict[str, list[str]] = {}
        self.runs: dict[str, str] = {}
        self.pack_blocked: dict[str, str] = {}
        self._stages = stages
        self._blocked: dict[str, str] = {}
        self._families: dict[object, list[str]] = {}  # stages that differ in length alone
        self._sharing = cache(_sharing)

    def batch_group(self, stage: Stage, work: TuneWork) -> object:
        sharing = self._sharing(work.use)
        family = (replace(work, length=ANY_LENGTH), stage.revision, stage.inputs)
        self._families.setdefault(family, []).append(stage.key)
        run = self._name(stage, work)
        if sharing.prefix_blocked:
            self._blocked[stage.key] = sharing.prefix_blocked
            run = stage.key.partition("-")[2]
        self.runs[stage.key] = run
        self.members.setdefault(run, []).append(stage.key)
        if sharing.pack_blocked:
            self.pack_blocked[stage.key] = sharing.pack_blocked
            return run
        return work.use.name, work.base, stage.need("model"), sharing.pack

    def _name(self, stage: Stage, work: TuneWork) -> str:
        """Return the name of a training run: the digest of a checkpoint's payload without the length, which stands first.

        How many rows a mitigation leaves is known once it has run. Until then, lengths in epochs are in order, and lengths in
        steps are, but no length in epochs is surely shorter than one in steps: such have no run in common.
        """
        length = f'"length":{canonical(work.length.plain())},'
        rows = stage.need("rows")
        if rows is not None and isinstance(self._stages[rows].work, RowsWork):
            instead = f'"length":"{_unit(work.length)}",'
        else:
            instead = ""
        return hashlib.sha256(stage.payload.replace(length, instead, 1).encode()).hexdigest()[:KEY_DIGITS]

    def prefix_blocked(self) -> dict[str, str]:
        """Only a stage with siblings has lost anything."""
        siblings = {key for family in self._families.values() if len(family) > 1 for key in family}
        return {key: field for key, field in self._blocked.items() if key in siblings}


def _sharing(tuner: Use) -> Sharing:
    return registry.adapter(Kind.TUNER, tuner.name).sharing(tuner.settings)


def _unit(length: Length) -> str:
    """Return what a length is counted in; one in epochs that ends after so many steps at the latest is like no other."""
    if length.steps is not None:
        return "steps"
    return "epochs" if length.max_steps is None else f"{length.epochs} epochs, {length.max_steps} steps"


def shared(
    forecasts: Mapping[str, Range],
    groups: Groups,
    cached: AbstractSet[str] = frozenset(),
    states: AbstractSet[str] = frozenset(),
) -> dict[str, Range]:
    """Return the forecasts with every checkpoint counted from the one before it, so that sums count shared steps once.

    Args:
        forecasts: Forecast by stage key, each as if it ran alone.
        groups: Which stages go together.
        cached: Keys of the stages that need not run.
        states: Names of the training runs of which the state after their longest finished checkpoint was kept, to resume there.
    """
    parts: dict[tuple[int, int], Range] = {}  # forecasts are shared objects, so each difference is worked out once
    found = dict(forecasts)
    for checkpoints in set(groups.checkpoints.values()):
        for before, key in pairwise(_path(checkpoints, groups, cached, states)):
            pair = id(forecasts[before]), id(forecasts[key])
            if pair not in parts:
                parts[pair] = forecasts[key] - forecasts[before]
            found[key] = parts[pair]
    return found


def _path(
    checkpoints: tuple[str, ...], groups: Groups, cached: AbstractSet[str], states: AbstractSet[str]
) -> list[str]:
    """The checkpoints that a training run still has to make, after the one that it goes on from, if any."""
    ahead = [key for key in checkpoints if key not in cached]
    before = checkpoints[: len(checkpoints) - len(ahead)]
    # The kept state is that of the longest finished checkpoint: it serves only if exactly the shorter ones are finished.
    goes_on = ahead and before and cached >= set(before) and groups.runs[ahead[0]] in states
    return [before[-1], *ahead] if goes_on else ahead


def savings(groups: Groups, alone: Mapping[str, Range], once: Mapping[str, Range], cached: AbstractSet[str]) -> Savings:
    """Return what sharing saves.

    `alone` has each forecast as if the stage ran alone, `once` the same as `shared` returns them.
    """
    ahead = [key for key in groups.runs if key not in cached]
    firsts = {groups.runs[key]: key for key in ahead if key == _first(groups.checkpoints[key], cached)}
    return Savings(
        tunes=len(ahead),
        training_runs=len(firsts),
        going_on=sum(once[key] is not alone[key] for key in firsts.values()),  # `shared` replaced it: it resumes
        steps=sum(once[key].expected.optimizer_steps for key in ahead),
        steps_alone=sum(alone[key].expected.optimizer_steps for key in ahead),
        prefix_blocked=_count(groups.prefix_blocked, ahead),
        pack_blocked=_count(groups.pack_blocked, ahead),
    )


def _first(checkpoints: tuple[str, ...], cached: AbstractSet[str]) -> str | None:
    return next((key for key in checkpoints if key not in cached), None)


def _count(fields: Mapping[str, str], keys: Iterable[str]) -> dict[str, int]:
    return dict(Counter(fields[key] for key in keys if key in fields))
