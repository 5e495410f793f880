"""Stages, the nodes of a plan: pieces of work that are done once, their states, and what each kind of work is made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from types import MappingProxyType
from typing import TypeAlias

from engine.domain.adapters import Use
from engine.domain.sampling import Draw
from engine.domain.sweep import Decoding, Length


class StageKind(StrEnum):
    """The kinds of work, in the order in which a cell goes through them; a cell may tune and edit several times."""

    SAMPLE = "sample"  # source -> rows
    ROWS = "rows"  # rows -> rows
    TUNE = "tune"  # model and rows -> model
    WEIGHTS = "weights"  # model and a reference model -> model
    GENERATE = "generate"  # model and prompts -> responses
    SCREEN = "screen"  # responses -> responses
    JUDGE = "judge"  # prompts and responses -> verdicts


class StageState(StrEnum):
    """Where a stage stands."""

    PENDING = "pending"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    BLOCKED = "blocked"  # a provider refused the work: a result, not a failure
    SKIPPED = "skipped"  # a stage that it needs failed or was blocked


LEGAL_TRANSITIONS: Mapping[StageState, frozenset[StageState]] = MappingProxyType(
    {
        StageState.PENDING: frozenset({StageState.RUNNING, StageState.SKIPPED, StageState.DONE}),
        StageState.RUNNING: frozenset(
            {StageState.DONE, StageState.FAILED, StageState.BLOCKED, StageState.PENDING}
        ),  # back to pending when its worker died or the run was interrupted
        StageState.DONE: frozenset({StageState.PENDING}),  # its artifact is gone and is needed again
        StageState.FAILED: frozenset({StageState.PENDING}),  # a new run tries again
        StageState.BLOCKED: frozenset({StageState.PENDING}),
        StageState.SKIPPED: frozenset({StageState.PENDING}),
    }
)


class WorkerKind(StrEnum):
    """What kind of worker runs a stage."""

    CPU = "cpu"  # needs no model: one worker does all, and so remembers every verdict
    MODEL = "model"  # holds a model on its device


@dataclass(frozen=True, slots=True)
class ModelRef:
    """Where a model is: a base, and what was made of it.

    Attributes:
        base: Folder of the base model, in the Hugging Face layout; or the name that a provider has for it.
        layers: Folders of what tuning and editing left, in order, each to be applied on top of those before: a PEFT adapter,
            all weights (which replace everything before), or the name of a model at a provider.
        template: What its chat template is told, as `name=value`.
        quantise: To what the base's weights are quantised as they are read, such as `nf4`; empty for as they are on disk.
    """

    base: str
    layers: tuple[str, ...] = ()
    quantise: str = ""
    template: tuple[str, ...] = ()

    @property
    def tuned(self) -> str | None:
        """The last layer, or None for the base itself."""
        return self.layers[-1] if self.layers else None

    @property
    def below(self) -> ModelRef:
        """The model without its last layer."""
        return replace(self, layers=self.layers[:-1])


@dataclass(frozen=True, slots=True)
class Pinned:
    """A model, data source or benchmark; `pin` has its content when planned, and the revision of the adapter that reads it."""

    use: Use
    pin: str


@dataclass(frozen=True, slots=True)
class SampleWork:
    """Draw rows, and after them those of a second source where there is one."""

    source: Pinned
    draw: Draw
    mix: tuple[Pinned, Draw] | None = None


@dataclass(frozen=True, slots=True)
class RowsWork:
    """Have a mitigation change rows. Inputs: `rows`, and further samples by the names that the mitigation gives them."""

    use: Use
    seed: int


@dataclass(frozen=True, slots=True)
class TuneWork:
    """Tune a model. Inputs: `rows`; and `model`, unless it begins with the base."""

    base: Pinned
    use: Use
    length: Length
    seed: int


@dataclass(frozen=True, slots=True)
class WeightsWork:
    """Have a mitigation edit weights. Inputs: `model`; and `start`, the starting model, unless that is the base."""

    base: Pinned
    use: Use


@dataclass(frozen=True, slots=True)
class GenerateWork:
    """Answer a benchmark. Input: `model`, unless the base answers."""

    base: Pinned
    benchmark: Pinned
    use: Use
    decoding: Decoding
    system: str | None
    seed: int | None  # None for greedy decoding, which has none


@dataclass(frozen=True, slots=True)
class ScreenWork:
    """Have a mitigation screen responses. Inputs: `responses`; and `verdicts`, those of its guard, where it has one."""

    use: Use
    benchmark: Pinned


@dataclass(frozen=True, slots=True)
class JudgeWork:
    """Judge responses. Input: `responses`.

    Attributes:
        model: The hosted model that the judge asks; None for a judge that runs here.
        pin: What the judge read beside its settings when planned; empty for nothing.
    """

    use: Use
    benchmark: Pinned
    model: Use | None = None
    pin: str = ""


Work: TypeAlias = SampleWork | RowsWork | TuneWork | WeightsWork | GenerateWork | ScreenWork | JudgeWork

KINDS: Mapping[type[Work], StageKind] = MappingProxyType(
    {
        SampleWork: StageKind.SAMPLE,
        RowsWork: StageKind.ROWS,
        TuneWork: StageKind.TUNE,
        WeightsWork: StageKind.WEIGHTS,
        GenerateWork: StageKind.GENERATE,
        ScreenWork: StageKind.SCREEN,
        JudgeWork: StageKind.JUDGE,
    }
)


@dataclass(frozen=True, slots=True)
class Stage:
    """One piece of work, done once however many cells need it.

    Attributes:
        key: `kind-` and 32 hex digits of the SHA-256 of `payload`.
        inputs: (name, key) of the stages that it needs.
        payload: The canonical JSON that the key is the hash of.
        worker: The kind of worker that runs it.
    """

    key: str
    adapter: str
    revision: int
    work: Work
    inputs: tuple[tuple[str, str], ...]
    payload: str
    worker: WorkerKind

    @property
    def kind(self) -> StageKind:
        """The kind of its work."""
        return KINDS[type(self.work)]

    @property
    def needs(self) -> tuple[str, ...]:
        """The keys of the stages that it needs, in order."""
        return tuple(key for _, key in self.inputs)

    def need(self, name: str) -> str | None:
        """Return the key of the input of that name, or None when it has none."""
        return next((key for other, key in self.inputs if other == name), None)


MODEL_STAGES = frozenset({StageKind.TUNE, StageKind.WEIGHTS})
"""The kinds that leave a model."""

MODEL_INPUTS = frozenset({"model", "start"})
"""The names of the inputs that are models."""


def layers(key: str | None, stages: Mapping[str, Stage]) -> tuple[str, ...]:
    """Return the stages whose artifacts make the model that `key` leaves, in the order in which they are applied.

    A tuned model is its own artifact on top of the model that it began with. An edited one is its own artifact on top of its
    starting model: the edit takes the place of what was tuned in between.
    No key means the base.
    """
    found: list[str] = []
    while key is not None:
        found.append(key)
        stage = stages[key]
        key = stage.need("start" if stage.kind is StageKind.WEIGHTS else "model")
    return tuple(reversed(found))


def artifacts_of(stage: Stage, stages: Mapping[str, Stage]) -> frozenset[str]:
    """Return the stages whose artifacts a stage reads: all that make the models that it is given."""
    models = (key for name, key in stage.inputs if name in MODEL_INPUTS)
    return frozenset(layer for key in models for layer in layers(key, stages))


def artifact_users(stages: Mapping[str, Stage]) -> dict[str, list[str]]:
    """Return, by the key of a stage that leaves a model, the stages that read its artifact; none are left out."""
    users: dict[str, list[str]] = {key: [] for key, stage in stages.items() if stage.kind in MODEL_STAGES}
    for key, stage in stages.items():
        for read in artifacts_of(stage, stages):
            users[read].append(key)
    return users
