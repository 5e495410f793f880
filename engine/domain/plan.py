"""Cells as planned, and the Plan: a deduplicated graph of stages, and what is measured with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from engine.domain.adapters import Use
from engine.domain.cell import Cell
from engine.domain.results import Measure
from engine.domain.stage import Stage


class Role(StrEnum):
    """What an evaluation of a cell is for."""

    HARM = "harm"
    UTILITY = "utility"
    OVER_REFUSAL = "over_refusal"


@dataclass(frozen=True, slots=True)
class JudgeKey:
    """A judge as the spec has it, what it measures, and the stage that runs it."""

    judge: Use
    measures: Measure
    key: str


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One benchmark, answered, screened and judged.

    Attributes:
        generate: Key of the generate stage.
        screening: Keys of the stages between the answers and the judges, in order: screens, and their guards before them.
        judges: The judge stages, in the order of the recipe.
    """

    role: Role
    benchmark: Use
    n_prompts: int
    generate: str
    screening: tuple[str, ...]
    judges: tuple[JudgeKey, ...]

    def stage_keys(self) -> Iterator[str]:
        """Yield the keys of its stages, inputs before what needs them."""
        yield self.generate
        yield from self.screening
        for judge in self.judges:
            yield judge.key


class CellOrigin(StrEnum):
    """Why a cell is in the plan."""

    SWEEP = "sweep"  # the spec asks for it
    BASELINE = "baseline"  # added: the starting model of other cells
    UNMITIGATED = "unmitigated"  # added: other cells without their mitigations


@dataclass(frozen=True, slots=True)
class PlannedCell:
    """A cell and the ordered stages that make it.

    Attributes:
        cell_id: `cell-` and 16 hex digits over the keys of its last stages.
        cell: The cell as the spec has it, mitigations and all.
        system: System prompt at test, after the mitigations; None for none.
        tier: Tier of the data source; None for an untuned cell.
        chain: Keys of the stages up to its model, in order, those of further inputs included: samples, rows, tunes, weights.
        model: Key of the stage that leaves its model; None for an untuned base.
        tune: Key of the stage that tunes on the user's rows; None for an untuned cell.
        baseline_id: Its starting model, untuned and without its mitigations; None for a baseline, or with `baselines: false`.
        unmitigated_id: The same cell without its mitigations; None without mitigations, or with `baselines: false`.
    """

    cell_id: str
    label: str
    cell: Cell
    system: str | None
    tier: str | None
    chain: tuple[str, ...]
    model: str | None
    tune: str | None
    evaluations: tuple[Evaluation, ...]
    origin: CellOrigin = CellOrigin.SWEEP
    baseline_id: str | None = None
    unmitigated_id: str | None = None

    @property
    def is_baseline(self) -> bool:
        """Whether the planner added it as the starting model of other cells."""
        return self.origin is CellOrigin.BASELINE

    @property
    def stages(self) -> tuple[str, ...]:
        """The keys of all its stages, inputs before what needs them."""
        return (*self.chain, *(key for evaluation in self.evaluations for key in evaluation.stage_keys()))


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
        baselines: Starting models added.
        unmitigated: Cells added that are others without their mitigations.
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
    unmitigated: int = 0

    @property
    def cells(self) -> int:
        """All cells: the sweep's own and those added."""
        return self.tuned + self.baselines + self.unmitigated


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run will do: cells, and the distinct stages behind them.

    Attributes:
        spec_sha256: SHA-256 of the validated sweep without its run settings and description.
        cells: The sweep's own cells in grid order, then those that were added.
        stages: Every distinct stage by key, inputs before what needs them.
        standin: True when a model is the made-up stand-in, so that no number says anything about real models.
    """

    sweep: str
    spec_sha256: str
    cells: tuple[PlannedCell, ...]
    stages: Mapping[str, Stage]
    pins: tuple[Pin, ...]
    counts: Counts
    standin: bool
