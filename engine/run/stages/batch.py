"""A stage batch: what a worker runs together, and what comes of each stage."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias, TypeVar

from engine.domain.cost import Usage
from engine.domain.results import ShardRef
from engine.domain.stage import ModelRef, Pinned, Stage
from engine.ports import Context, Fit
from engine.run.stages import inputs
from engine.store import artifacts
from engine.store.layout import RunDirectory


@dataclass(frozen=True, slots=True)
class StageBatch:
    """Stages of one kind and batch group that a worker runs together, and where their inputs are.

    Attributes:
        stages: The stages, at least one.
        inputs: The shards of the stages that they need, and of those in `known`, by key.
        sources: The data sources that the samples among the inputs were drawn from.
        models: For each model that they need, by the key of its stage, the stages whose artifacts make it, in order.
        runs: For tune stages, the name of each one's training run by key; the checkpoints of one come in order.
        keep_states: Whether what a training run needs to go on is kept when it has ended.
        known: For judge stages, (judge stage, the stage whose responses it judged) of what this judge has said in earlier
            runs, where the worker does not remember it.
        fits: What stages take of the worker's memory and how they are to be cut, by key, where that is known.
        account: Name of the account that it runs on; None when it needs none.
        slot: Name of the slot that it was given to; a worker may have several.
    """

    stages: tuple[Stage, ...]
    inputs: Mapping[str, tuple[ShardRef, ...]] = field(default_factory=dict)
    sources: tuple[Pinned, ...] = ()
    models: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    runs: Mapping[str, str] = field(default_factory=dict)
    keep_states: bool = False
    known: tuple[tuple[str, str], ...] = ()
    fits: Mapping[str, Fit] = field(default_factory=dict)
    account: str | None = None
    slot: str = ""

    def shard(self, key: str, table: str) -> ShardRef:
        """Return the shard of a table that the stage of `key` wrote."""
        (found,) = [ref for ref in self.inputs[key] if ref.table == table]
        return found

    def has(self, key: str, table: str) -> bool:
        """Tell whether the stage of `key` wrote rows of a table."""
        return any(ref.table == table for ref in self.inputs[key])


@dataclass(frozen=True, slots=True)
class Place:
    """Where a stage batch runs: the run directory, and what the worker has."""

    run: RunDirectory
    context: Context

    def model(self, batch: StageBatch, base: Pinned, key: str | None) -> ModelRef:
        """Return the model that the stage of `key` left; the base when None.

        Raises:
            ValueError: The base has changed since it was planned.
            StoreError: An artifact is not there, or not whole.
        """
        bare = inputs.base(self.context.warm, base)
        if key is None:
            return bare
        made = tuple(str(artifacts.locate(self.run, layer)) for layer in batch.models[key])
        return replace(bare, layers=bare.layers + made)


@dataclass(frozen=True, slots=True)
class Made:
    """What a stage made: rows by table, its artifact, and what it used; `device_seconds` of 0 means not measured."""

    tables: Mapping[str, Sequence[Mapping[str, object]]]
    usage: Usage
    artifact: str | None = None
    after: str | None = None


W = TypeVar("W")


def work_of(stage: Stage, kind: type[W]) -> W:
    """Return the work of a stage.

    Raises:
        TypeError: It is of another kind.
    """
    if not isinstance(stage.work, kind):
        raise TypeError(f"{stage.key} is a {stage.kind.value} stage, not {kind.__name__}")
    return stage.work


Ended: TypeAlias = Iterator[tuple[str, Made | Exception]]
Runner: TypeAlias = Callable[[StageBatch, Place], Ended]


def each(run_stage: Callable[[Stage, StageBatch, Place], Made]) -> Runner:
    """Return what runs the stages of a batch one after another; one that fails does not stop the others.

    It raises StoppedError when the run is to stop.
    """

    def runner(batch: StageBatch, place: Place) -> Ended:
        for stage in batch.stages:
            begun = time.monotonic()
            place.context.pulse.beat(stage.key, 0, 1)
            try:
                made = run_stage(stage, batch, place)
            except Exception as error:  # noqa: BLE001 - handed on; the worker records it
                yield stage.key, error
            else:
                taken = replace(made.usage, device_seconds=time.monotonic() - begun)
                yield stage.key, replace(made, usage=taken)

    return runner
