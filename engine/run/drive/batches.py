"""Puts stage batches together: the stages, and where everything is that they need."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import chain

from engine.domain.results import ShardRef
from engine.domain.stage import MODEL_INPUTS, Pinned, SampleWork, Stage, StageKind, layers
from engine.ports import Fit
from engine.run.drive.prepare import Prepared
from engine.run.slots import Slot
from engine.run.stages.batch import StageBatch
from engine.store.state import State


class Batches:
    """Makes the stage batches of one run; `cached` are the keys of the stages that need not run."""

    def __init__(self, ready: Prepared, state: State, cached: frozenset[str]) -> None:
        """Start with nothing handed over."""
        self._ready = ready
        self._state = state
        self._cached = cached
        self._recalled: set[tuple[str, str]] = set()  # (slot, group) whose earlier verdicts have been handed over

    def batch(self, slot: Slot, stages: tuple[Stage, ...], halvings: Mapping[str, int]) -> StageBatch:
        """Return the batch of some stages for a slot; `halvings` says how much smaller stages are cut than planned, by key."""
        needs = dict.fromkeys(need for stage in stages for need in stage.needs)
        runs, known = self._ready.groups.runs, self._known(slot, stages[0])
        return StageBatch(
            stages=stages,
            inputs=self._shards(chain(needs, *known)),
            sources=tuple(dict.fromkeys(self._sources(needs))),
            models=self._models(stages),
            runs={stage.key: runs[stage.key] for stage in stages if stage.key in runs},
            keep_states=self._ready.loaded.sweep.run.keep_weights,
            fits=self._fits(stages, halvings),
            known=known,
            account=self._ready.groups.accounts.get(stages[0].key),
            slot=slot.name,
        )

    def _fits(self, stages: Sequence[Stage], halvings: Mapping[str, int]) -> dict[str, Fit]:
        """What is known of stages' memory, with what does not fit as planned cut smaller."""
        known = self._ready.memory.fits
        found = {stage.key: known[stage.key] for stage in stages if stage.key in known}
        cramped = {stage.key: count for stage in stages if (count := halvings.get(stage.key, 0))}
        return found | {key: replace(found.get(key, Fit()), halvings=count) for key, count in cramped.items()}

    def forget(self, slot: str) -> None:
        """Note that the worker of a slot is another one now, which remembers nothing."""
        self._recalled = {(name, group) for name, group in self._recalled if name != slot}

    def _shards(self, keys: Iterable[str]) -> dict[str, tuple[ShardRef, ...]]:
        found: dict[str, tuple[ShardRef, ...]] = dict.fromkeys(keys, ())
        for key, shard in self._state.shards(found):
            found[key] += (shard,)
        return found

    def _sources(self, needs: Iterable[str]) -> Iterable[Pinned]:
        for need in needs:
            work = self._ready.plan.stages[need].work
            if isinstance(work, SampleWork):
                yield work.source
                if work.mix is not None:
                    yield work.mix[0]

    def _models(self, stages: Sequence[Stage]) -> dict[str, tuple[str, ...]]:
        keys = (key for stage in stages for name, key in stage.inputs if name in MODEL_INPUTS)
        return {key: layers(key, self._ready.plan.stages) for key in keys}

    def _known(self, slot: Slot, first: Stage) -> tuple[tuple[str, str], ...]:
        """What the judge of a batch said in earlier runs, for a worker that does not remember it."""
        groups = self._ready.groups.batch_groups
        group = groups[first.key]
        if first.kind is not StageKind.JUDGE or (slot.name, group) in self._recalled:
            return ()
        self._recalled.add((slot.name, group))
        return tuple((key, self._ready.plan.stages[key].needs[0]) for key in self._cached if groups[key] == group)
