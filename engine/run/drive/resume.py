"""What a run directory already holds of a plan: which stages need not run, and what was damaged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from engine.domain.plan import Plan
from engine.domain.results import ShardRef
from engine.domain.stage import MODEL_STAGES, StageKind, StageState, artifacts_of
from engine.store import artifacts, shards
from engine.store.layout import RunDirectory
from engine.store.state import State, StoredStage


@dataclass(frozen=True, slots=True)
class Survey:
    """What is there.

    Attributes:
        cached: Keys of the plan's stages that need not run.
        damaged: Keys of stages that were done and whose shards, or weights that are needed, are no longer whole; they will
            run again.
        device_seconds: Measured device-seconds of finished stages, by key.
        states: Names of the training runs that can go on from where they were.
    """

    cached: frozenset[str] = frozenset()
    damaged: tuple[str, ...] = ()
    device_seconds: Mapping[str, float] = field(default_factory=dict)
    states: frozenset[str] = frozenset()


def survey(root: Path, plan: Plan) -> Survey:
    """Look at a run directory without changing it; an absent one holds nothing."""
    run = RunDirectory(root)
    if not run.state.exists():
        return Survey()
    with State.peek(run) as state:
        return survey_state(run, state, plan)


def survey_state(run: RunDirectory, state: State, plan: Plan) -> Survey:
    """Compare what `state` says is done with what is on disk, byte for byte."""
    stored = state.stages()
    whole = cache(lambda shard: shards.is_whole(run, shard))  # a file may hold rows of many stages
    refs: dict[str, list[ShardRef]] = {}
    for key, shard in state.shards():
        refs.setdefault(key, []).append(shard)
    done = [key for key in plan.stages if key in stored and stored[key].state is StageState.DONE]
    # A weights stage leaves an artifact and no rows.
    rowless = {key for key in done if plan.stages[key].kind is StageKind.WEIGHTS}
    damaged = tuple(
        key for key in done if (key not in refs and key not in rowless) or not all(map(whole, refs.get(key, ())))
    )
    lost = {key for key in done if plan.stages[key].kind in MODEL_STAGES and _is_lost(run, stored[key])}
    cached = _needless(plan, lost, frozenset(done) - set(damaged) - _outdated(plan, damaged))
    spoiled = (key for key in lost - cached - {*damaged} if stored[key].artifact is not None)
    return Survey(cached, (*damaged, *spoiled), state.device_seconds_by_stage(), artifacts.kept_states(run))


def _outdated(plan: Plan, damaged: Sequence[str]) -> set[str]:
    """Screens and judges of answers that will be made again: off the CPU those may differ, and verdicts must fit the text."""
    again = {*damaged}
    for key, stage in plan.stages.items():  # inputs come before what needs them
        if stage.kind in {StageKind.SCREEN, StageKind.JUDGE} and again & {*stage.needs}:
            again.add(key)
    return again - {*damaged}


def _is_lost(run: RunDirectory, stage: StoredStage) -> bool:
    """Whether a stage's weights were deleted, or are no longer whole."""
    return stage.artifact is None or not artifacts.is_whole(run, stage.key)


def _needless(plan: Plan, lost: AbstractSet[str], done: frozenset[str]) -> frozenset[str]:
    """Done stages, without those whose weights are needed again, by others or by one another, and are lost or out of date."""
    needless = done
    while again := _needed_again(plan, needless, lost):
        needless -= again
    return needless


def _needed_again(plan: Plan, needless: frozenset[str], lost: AbstractSet[str]) -> set[str]:
    """Stages whose weights some stage that will run reads, and that are lost, or were made on top of what will be made again."""
    stages = plan.stages
    wanted = {read for key in stages if key not in needless for read in artifacts_of(stages[key], stages)}
    return {key for key in wanted & needless if key in lost or not artifacts_of(stages[key], stages) <= needless}
