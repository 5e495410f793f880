"""Stages, their states, and the Plan: a deduplicated graph of content-addressed work."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from engine.domain.cost import Usage
from engine.domain.results import Measure
from engine.domain.sweep import Cell


class StageKind(StrEnum):
    """The kinds of work, in the order in which a cell goes through them."""

    SAMPLE = "sample"
    TUNE = "tune"
    GENERATE = "generate"
    JUDGE = "judge"


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
        ),  # back to pending when its host died or the run was interrupted
        StageState.DONE: frozenset({StageState.PENDING}),  # its artifact is gone and is needed again
        StageState.FAILED: frozenset({StageState.PENDING}),  # a new run tries again
        StageState.BLOCKED: frozenset({StageState.PENDING}),
        StageState.SKIPPED: frozenset({StageState.PENDING}),
    }
)


class Role(StrEnum):
    """What an evaluation of a cell is for."""

    HARM = "harm"
    UTILITY = "utility"
    OVER_REFUSAL = "over_refusal"


@dataclass(frozen=True, slots=True)
class ModelRef:
    """Where a model is.

    Attributes:
        base: Folder of the base model, in the Hugging Face layout; or the name that a provider has for it.
        tuned: Folder of what tuning left: a PEFT adapter, fully tuned weights, or the name of a model at a provider; None
            for the base itself.
    """

    base: str
    tuned: str | None = None


@dataclass(frozen=True, slots=True)
class Binding:
    """Where a stage finds what its key pins: references that bear no identity.

    Attributes:
        model: Model reference, or empty.
        data: Data source reference, or empty.
        mix: Second data source reference, or empty.
        benchmark: Benchmark reference, or empty.
        benchmark_pin: Its pin when planned; a judge stage's key has it by way of its input.
        judge: Judge reference, or empty.
    """

    model: str = ""
    data: str = ""
    mix: str = ""
    benchmark: str = ""
    benchmark_pin: str = ""
    judge: str = ""


@dataclass(frozen=True, slots=True)
class Stage:
    """One piece of work, done once however many cells need it.

    Attributes:
        key: `kind-` and 32 hex digits of the SHA-256 of `payload`.
        kind: What it does.
        adapter: The adapter that does it.
        revision: That adapter's revision.
        settings: Canonical JSON of its settings, defaults excluded.
        inputs: Keys of the stages that it needs, in order.
        binding: Where it finds what it needs.
    """

    key: str
    kind: StageKind
    adapter: str
    revision: int
    settings: str
    inputs: tuple[str, ...]
    binding: Binding


@dataclass(frozen=True, slots=True)
class JudgeKey:
    """A judge's name in the spec, what it measures, and the stage that runs it."""

    judge: str
    measures: Measure
    key: str


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One benchmark, answered and judged.

    Attributes:
        role: What it is for.
        benchmark: The benchmark's reference.
        n_prompts: Prompts in it.
        generate: Key of the generate stage.
        judges: The judge stages, in the order of the recipe.
    """

    role: Role
    benchmark: str
    n_prompts: int
    generate: str
    judges: tuple[JudgeKey, ...]


@dataclass(frozen=True, slots=True)
class PlannedCell:
    """A cell and the stages that make it.

    Attributes:
        cell_id: `cell-` and 16 hex digits over the keys of its last stages.
        label: Its coordinates in words.
        cell: The cell, its recipe after the mitigations.
        mitigation: The mitigations as written, joined by `+`; `none` without any.
        system: System prompt at test, or None for none.
        tier: Tier of the data source; None for an untuned cell.
        sample: Key of the sample stage; None for an untuned cell.
        tune: Key of the tune stage; None for an untuned cell.
        evaluations: What is measured.
        is_baseline: The planner added it as the untuned counterpart of other cells.
        baseline_id: Its untuned counterpart; None for a baseline, or with `baselines: false`.
    """

    cell_id: str
    label: str
    cell: Cell
    mitigation: str
    system: str | None
    tier: str | None
    sample: str | None
    tune: str | None
    evaluations: tuple[Evaluation, ...]
    is_baseline: bool
    baseline_id: str | None

    def stage_keys(self) -> Iterator[str]:
        """Yield the keys of all its stages, inputs before what needs them."""
        if self.sample is not None:
            yield self.sample
        if self.tune is not None:
            yield self.tune
        for evaluation in self.evaluations:
            yield evaluation.generate
            for judge in evaluation.judges:
                yield judge.key


@dataclass(frozen=True, slots=True)
class Pin:
    """Something outside the spec, pinned by content when planned.

    Attributes:
        kind: `model`, `data` or `benchmark`.
        ref: The reference in the spec.
        pin: `sha256:` and hex digits, or a revision.
        detail: Size and licence, for people.
    """

    kind: str
    ref: str
    pin: str
    detail: str


@dataclass(frozen=True, slots=True)
class Counts:
    """How the number of cells came about; each step's result is the one before plus or minus what it names.

    Attributes:
        product: Combinations of the axes (1 with no axes).
        zipped: Factor that the zips multiply by.
        conditional: Combinations after the `when` axes were applied.
        excluded: Combinations that `exclude` dropped.
        included: Combinations that `include` added.
        extended: Combinations that `include` gave further levels; their number is unchanged.
        merged: Cells dropped because another cell has the same recipe.
        tuned: Cells of the sweep itself: conditional - excluded + included - merged.
        baselines: Untuned counterparts added.
    """

    product: int
    zipped: int
    conditional: int
    excluded: int
    included: int
    extended: int
    merged: int
    tuned: int
    baselines: int

    @property
    def cells(self) -> int:
        """All cells: tuned and baselines."""
        return self.tuned + self.baselines


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run will do: cells, and the distinct stages behind them.

    Attributes:
        sweep: The sweep's name.
        spec_sha256: SHA-256 of the validated sweep without its run settings and description.
        cells: The sweep's own cells in grid order, then the baselines.
        stages: Every distinct stage by key, inputs before what needs them.
        pins: What was pinned.
        counts: The proof of the number of cells.
        standin: True when a model is the made-up stand-in, so that no number says anything about real models.
    """

    sweep: str
    spec_sha256: str
    cells: tuple[PlannedCell, ...]
    stages: Mapping[str, Stage]
    pins: tuple[Pin, ...]
    counts: Counts
    standin: bool


@dataclass(frozen=True, slots=True)
class Range:
    """A usage forecast: low, expected and high."""

    low: Usage
    expected: Usage
    high: Usage

    def __add__(self, other: Range) -> Range:
        """Add two ranges, end by end."""
        return Range(self.low + other.low, self.expected + other.expected, self.high + other.high)
