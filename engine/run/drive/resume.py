"""What a run directory already holds of a plan: which stages need not run, and what was damaged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from engine.domain.results import ShardRef
from engine.domain.stage import Plan, StageKind, StageState
from engine.store import artifacts, shards
from engine.store.layout import RunDirectory
from engine.store.state import State, StoredStage


@dataclass(frozen=True, slots=True)
class Survey:
    """What is there.

    Attributes:
        cached: Keys of the plan's stages that need not run.
        damaged: Keys of stages that were done and whose shards are no longer whole; they will run again.
        device_seconds: Measured device-seconds of finished stages, by key.
        states: Names of the training runs that can go on from where they were.
    """

    cached: frozenset[str]
    damaged: tuple[str, ...]
    device_seconds: Mapping[str, float]
    states: frozenset[str] = frozenset()


NOTHING = Survey(frozenset(), (), {})


def survey(root: Path, plan: Plan) -> Survey:
    """Look at a run directory without changing it; an absent one holds nothing.

    Args:
        root: The run directory.
        plan: The plan to compare with.
    """
    run = RunDirectory(root)
    if not run.state.exists():
        return NOTHING
    state = State.peek(run)
    try:
        return survey_state(run, state, plan)
    finally:
        state.close()


def survey_state(run: RunDirectory, state: State, plan: Plan) -> Survey:
    """Compare what `state` says is done with what is on disk, byte for byte."""
    stored = state.stages()
    whole = cache(lambda shard: shards.is_whole(run, shard))  # a file may hold rows of many stages
    refs: dict[str, list[ShardRef]] = {}
    for key, shard in state.shards():
        refs.setdefault(key, []).append(shard)
    done = [key for key in plan.stages if key in stored and stored[key].state is StageState.DONE]
    damaged = tuple(key for key in done if key not in refs or not all(map(whole, refs[key])))
    cached = _needless(run, plan, stored, frozenset(done) - set(damaged) - _outdated(plan, damaged))
    return Survey(cached, damaged, state.device_seconds_by_stage(), artifacts.kept_states(run))


def _outdated(plan: Plan, damaged: Sequence[str]) -> set[str]:
    """Judge stages whose answers will be made again: off the CPU those may differ, and verdicts must fit the text."""
    return {
        key for key, stage in plan.stages.items() if stage.kind is StageKind.JUDGE and set(stage.inputs) & {*damaged}
    }


def _needless(run: RunDirectory, plan: Plan, stored: Mapping[str, StoredStage], done: frozenset[str]) -> frozenset[str]:
    """Done stages, without the tune stages whose weights are gone and are needed again."""
    wanted = {need for key, stage in plan.stages.items() if key not in done for need in stage.inputs}
    gone = {
        key
        for key in done & wanted
        if plan.stages[key].kind is StageKind.TUNE
        and (stored[key].artifact is None or not artifacts.is_whole(run, key))
    }
    return done - gone
