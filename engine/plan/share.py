"""Which stages a host may do together, and what that saves. Nothing here is identity: every stage keeps its own key.

- A *trajectory* is one training run with several cuts: tune stages that differ in `epochs` or `max_steps` alone, where
  the fine-tuner says that a longer run passes exactly through the shorter ones.
- A *lane* holds the stages that may share a batch: tune stages that train in one pack, generate stages that decode
  together, judge stages of one judge and benchmark. A host takes a *bundle* of stages from one lane at a time.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from itertools import pairwise
from types import MappingProxyType

from engine import registry
from engine.domain.stage import Range, Stage, StageKind
from engine.domain.sweep import TuneRecipe
from engine.plan.fingerprint import KEY_DIGITS, canonical, payload
from engine.ports import Sharing
from engine.registry import Kind

LENGTHS = ("epochs", "max_steps")
"""The fields in which the cuts of one trajectory may differ."""

ALONE = ("benchmark", "seed", "system")
"""The settings of a generate stage in which the members of one batch may differ."""


@dataclass(frozen=True, slots=True)
class Groups:
    """Who goes with whom.

    Attributes:
        lanes: Lane by stage key; stages of one lane may be in one bundle.
        cuts: By tune stage key, the keys of all cuts of its trajectory, the shortest first.
        runs: By tune stage key, the name of its trajectory, the same in every plan that has a cut of it.
        prefix_blocked: By tune stage key, the field that keeps it from sharing a trajectory with others of this plan.
        pack_blocked: By tune stage key, the field that keeps it from training in a pack.
        accounts: By stage key, the account that it runs on; stages that need none are left out.
    """

    lanes: Mapping[str, str]
    cuts: Mapping[str, tuple[str, ...]]
    runs: Mapping[str, str]
    prefix_blocked: Mapping[str, str]
    pack_blocked: Mapping[str, str]
    accounts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Savings:
    """What sharing saves in the tune stages that are still to run.

    Attributes:
        tunes: Tune stages to run.
        trajectories: Training runs that they take.
        going_on: Of those, the runs that go on from where an earlier one ended.
        steps: Optimizer steps that will be taken.
        steps_alone: Optimizer steps that separate runs would take.
        prefix_blocked: Number of tune stages that share no trajectory because of a field, by field.
        pack_blocked: Number of tune stages that train alone because of a field, by field.
    """

    tunes: int
    trajectories: int
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
    """Return who goes with whom.

    Args:
        stages: Every distinct stage of a plan by key.
        forecasts: Forecast by stage key; the optimizer steps order the cuts of a trajectory.
        accounts: Account by stage key, of those that need one.
    """
    tunes = _Tunes()
    memo: dict[tuple[str, str, str], str] = {}
    lanes = {}
    for key, stage in stages.items():
        if stage.kind is StageKind.TUNE:
            lanes[key] = tunes.lane(stage)
        else:
            same = (stage.adapter, stage.settings, stage.binding.benchmark)
            lanes[key] = memo.get(same) or memo.setdefault(same, _lane(stage))
    cuts: dict[str, tuple[str, ...]] = {}
    for members in tunes.members.values():
        ordered = tuple(sorted(members, key=lambda key: forecasts[key].expected.optimizer_steps))
        cuts |= dict.fromkeys(members, ordered)
    return Groups(lanes, cuts, tunes.runs, tunes.prefix_blocked(), tunes.pack_blocked, accounts)


def _lane(stage: Stage) -> str:
    if stage.kind is StageKind.SAMPLE:
        return "sample"
    if stage.kind is StageKind.JUDGE:
        return f"judge {stage.adapter} {stage.binding.benchmark}"
    settings = {name: value for name, value in json.loads(stage.settings).items() if name not in ALONE}
    return f"generate {stage.adapter} {canonical(settings)}"


class _Tunes:
    """Sorts tune stages; what their recipes have in common is worked out once."""

    def __init__(self) -> None:
        self.members: dict[str, list[str]] = {}
        self.runs: dict[str, str] = {}
        self.pack_blocked: dict[str, str] = {}
        self._blocked: dict[str, str] = {}
        self._families: Counter[str] = Counter()
        self._family: dict[str, str] = {}
        self._memo: dict[tuple[str, str], tuple[Sharing, str, str]] = {}

    def lane(self, stage: Stage) -> str:
        sharing, rest, model = self._read(stage)
        family = _digest(payload(stage.kind, stage.adapter, stage.revision, rest, stage.inputs))
        self._family[stage.key] = family
        self._families[family] += 1
        run = family
        if sharing.prefix_blocked:
            self._blocked[stage.key] = sharing.prefix_blocked
            run = stage.key.partition("-")[2]
        self.runs[stage.key] = run
        self.members.setdefault(run, []).append(stage.key)
        if sharing.pack_blocked:
            self.pack_blocked[stage.key] = sharing.pack_blocked
            return f"tune {run}"
        return f"tune {stage.adapter} {model} {canonical(sharing.pack)}"

    def _read(self, stage: Stage) -> tuple[Sharing, str, str]:
        """What the fine-tuner says of the settings, the settings without their length, and the model's pin."""
        memo = (stage.adapter, stage.settings)
        if memo not in self._memo:
            settings = json.loads(stage.settings)
            tune = settings["tune"]
            recipe = TuneRecipe.model_validate(tune | {"adapter": stage.adapter}, strict=False)
            shorn = {name: value for name, value in tune.items() if name not in LENGTHS}
            sharing = registry.adapter(Kind.TUNER, stage.adapter).sharing(recipe)
            self._memo[memo] = (sharing, canonical(settings | {"tune": shorn}), settings["model"])
        return self._memo[memo]

    def prefix_blocked(self) -> dict[str, str]:
        """Only a stage with siblings has lost anything."""
        return {key: field for key, field in self._blocked.items() if self._families[self._family[key]] > 1}


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:KEY_DIGITS]


def shared(
    forecasts: Mapping[str, Range],
    groups: Groups,
    cached: AbstractSet[str] = frozenset(),
    states: AbstractSet[str] = frozenset(),
) -> dict[str, Range]:
    """Return the forecasts with every cut counted from the cut before it, so that sums count shared steps once.

    Args:
        forecasts: Forecast by stage key, each as if it ran alone.
        groups: Who goes with whom.
        cached: Keys of the stages that need not run.
        states: Names of the trajectories that go on from their longest cut that need not run.
    """
    since = _Since()
    found = dict(forecasts)
    for cuts in set(groups.cuts.values()):
        for before, key in pairwise(_path(cuts, groups, cached, states)):
            found[key] = since(forecasts[before], forecasts[key])
    return found


def _path(cuts: tuple[str, ...], groups: Groups, cached: AbstractSet[str], states: AbstractSet[str]) -> list[str]:
    """The cuts that a trajectory still has to make, after the one that it goes on from, if any."""
    ahead = [key for key in cuts if key not in cached]
    before = cuts[: len(cuts) - len(ahead)]  # a state is where the longest cut was, so of no use to a shorter one
    goes_on = ahead and before and cached >= set(before) and groups.runs[ahead[0]] in states
    return [before[-1], *ahead] if goes_on else ahead


class _Since:
    """Subtracts one range from another; forecasts are shared objects, so each pair once."""

    def __init__(self) -> None:
        self._memo: dict[tuple[int, int], Range] = {}

    def __call__(self, before: Range, whole: Range) -> Range:
        pair = (id(before), id(whole))
        if pair not in self._memo:
            self._memo[pair] = Range(whole.low - before.low, whole.expected - before.expected, whole.high - before.high)
        return self._memo[pair]


def savings(groups: Groups, alone: Mapping[str, Range], once: Mapping[str, Range], cached: AbstractSet[str]) -> Savings:
    """Return what sharing saves.

    Args:
        groups: Who goes with whom.
        alone: Forecast by stage key, each as if it ran alone.
        once: The same, as `shared` returns them.
        cached: Keys of the stages that need not run.
    """
    ahead = [key for key in groups.runs if key not in cached]
    firsts = {groups.runs[key]: key for key in reversed(ahead) if key == _first(groups.cuts[key], cached)}
    return Savings(
        tunes=len(ahead),
        trajectories=len(firsts),
        going_on=sum(once[key] is not alone[key] for key in firsts.values()),
        steps=sum(once[key].expected.optimizer_steps for key in ahead),
        steps_alone=sum(alone[key].expected.optimizer_steps for key in ahead),
        prefix_blocked=_count(groups.prefix_blocked, ahead),
        pack_blocked=_count(groups.pack_blocked, ahead),
    )


def _first(cuts: tuple[str, ...], cached: AbstractSet[str]) -> str | None:
    return next((key for key in cuts if key not in cached), None)


def _count(fields: Mapping[str, str], keys: Iterable[str]) -> dict[str, int]:
    return dict(Counter(fields[key] for key in keys if key in fields))
