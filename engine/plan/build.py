"""Cells → Plan: each cell becomes an ordered chain of keyed stages, beside its starting model and its unmitigated twin."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from engine.domain.adapters import Use
from engine.domain.cell import Cell
from engine.domain.plan import CellOrigin, Counts, Evaluation, JudgeKey, Plan, PlannedCell, Role
from engine.domain.sweep import Level, Measured, Recipe, Sweep
from engine.plan.catalogue import Catalogue
from engine.plan.fingerprint import spec_digest
from engine.plan.mitigations import Changes, changes, system_prompt
from engine.plan.stages import StageBook
from engine.ports.mitigation import ModelStep, Tune
from engine.spec.messages import brief

CELL_DIGITS = 16
MITIGATIONS = "mitigations"
_ROLES = {"benchmark": Role.HARM, "utility": Role.UTILITY, "over_refusal": Role.OVER_REFUSAL}


def build(sweep: Sweep, cells: Sequence[Cell], counts: Counts, catalogue: Catalogue) -> Plan:
    """Return the plan of `cells`.

    Cells that turn out to be the same work are merged, and starting models and unmitigated twins are added.

    Raises:
        PlanError: When a mitigation refuses a recipe or an adapter is unknown.
    """
    planner = _Planner(StageBook(catalogue), with_pairs=sweep.baselines)
    planned: dict[str, PlannedCell] = {}
    added: dict[str, PlannedCell] = {}
    for cell in cells:
        entry, others = planner.plan_cell(cell)
        planned.setdefault(entry.cell_id, entry)
        for other in others:
            added.setdefault(other.cell_id, other)
    # A sweep may itself contain the starting model or the twin; then that cell serves and none is added.
    rest = [other for cell_id, other in added.items() if cell_id not in planned]
    rest.sort(key=lambda other: other.is_baseline)
    return Plan(
        sweep=sweep.sweep,
        spec_sha256=spec_digest(sweep),
        cells=(*planned.values(), *rest),
        stages=planner.book.stages,
        pins=planner.book.pins,
        counts=replace(
            counts,
            merged=counts.merged + len(cells) - len(planned),
            tuned=len(planned),
            baselines=sum(other.is_baseline for other in rest),
            unmitigated=sum(not other.is_baseline for other in rest),
        ),
        standin=planner.book.standin,
    )


@dataclass(slots=True)
class _Chain:
    """The stages up to a cell's model.

    Attributes:
        stages: Their keys, in order.
        start: The stage that leaves the starting model; None for the base.
        model: The stage that leaves the model; None for the base.
        tune: The stage that tunes on the user's rows; None for an untuned cell.
    """

    stages: dict[str, None] = field(default_factory=dict)
    start: str | None = None
    model: str | None = None
    tune: str | None = None

    def add(self, key: str) -> str:
        self.stages[key] = None
        return key


@dataclass(slots=True)
class _Planner:
    book: StageBook
    with_pairs: bool
    _untuned: dict[tuple[Recipe, tuple[str, ...]], PlannedCell] = field(default_factory=dict)
    _twins: dict[Recipe, tuple[PlannedCell, tuple[PlannedCell, ...]]] = field(default_factory=dict)

    def plan_cell(self, cell: Cell) -> tuple[PlannedCell, tuple[PlannedCell, ...]]:
        """Return the planned cell, and the cells that it is paired with."""
        recipe = self.book.catalogue.counted(cell.recipe)
        cell = cell if recipe is cell.recipe else replace(cell, recipe=recipe)
        system = system_prompt(recipe, self.book.catalogue)
        work = changes(recipe, system)
        chain = self._chain(recipe, work)
        entry = self._planned(cell, work, chain)
        others: list[PlannedCell] = []
        if not self.with_pairs:
            return entry, ()
        if chain.model is not None or recipe.mitigations:
            baseline = self._baseline(recipe, system, work, chain)
            if baseline.cell_id != entry.cell_id:
                others.append(baseline)
                entry = replace(entry, baseline_id=baseline.cell_id)
        if recipe.mitigations:
            twin, its_own = self._twin(cell)
            if twin.cell_id != entry.cell_id:
                others += (twin, *its_own)
                entry = replace(entry, unmitigated_id=twin.cell_id)
        return entry, tuple(others)

    def _chain(self, recipe: Recipe, work: Changes) -> _Chain:
        chain = _Chain()
        for use, change in work.steps:
            for step in change.before:
                chain.model = self._step(recipe, use, step, chain)
        chain.start = chain.model  # until here, weights are edited on top of the base
        if recipe.data is not None and work.tune is not None:
            rows = chain.add(self.book.sample(recipe.data, recipe.seed))
            for use, change in work.steps:
                for inserted in change.rows:
                    further = {
                        name: chain.add(self.book.sample(data, recipe.seed)) for name, data in inserted.further.items()
                    }
                    rows = chain.add(self.book.rows(use, recipe.seed, rows, further))
            chain.tune = chain.add(self.book.tune(recipe.model, work.tune, recipe.seed, rows, chain.start))
            chain.model = chain.tune
        for use, change in work.steps:
            for step in change.after:
                chain.model = self._step(recipe, use, step, chain)
        return chain

    def _step(self, recipe: Recipe, use: Use, step: ModelStep, chain: _Chain) -> str:
        """Add a step that makes a model of a model, and return its stage."""
        if isinstance(step, Tune):
            rows = chain.add(self.book.sample(step.data, recipe.seed))
            return chain.add(self.book.tune(recipe.model, step.tune, recipe.seed, rows, chain.model))
        return chain.add(self.book.weights(recipe.model, use, chain.model, chain.start))

    def _planned(self, cell: Cell, work: Changes, chain: _Chain) -> PlannedCell:
        data = cell.recipe.data
        evaluations = self._evaluations(cell.recipe, work, chain.model)
        return PlannedCell(
            cell_id=_cell_id(evaluations),
            label=cell.label or "the recipe",
            cell=cell,
            system=work.system,
            tier=None if data is None else self.book.catalogue.source(data.source).tier,
            chain=tuple(chain.stages),
            model=chain.model,
            tune=chain.tune,
            evaluations=evaluations,
        )

    def _evaluations(self, recipe: Recipe, work: Changes, model: str | None) -> tuple[Evaluation, ...]:
        return tuple(self._evaluation(recipe, work, model, wanted) for wanted in recipe.measured)

    def _evaluation(self, recipe: Recipe, work: Changes, model: str | None, wanted: Measured) -> Evaluation:
        role, benchmark = _ROLES[wanted.path], wanted.benchmark
        how = self.book.generate(recipe.model, benchmark, recipe.generate, work.system, recipe.seed)
        generate = responses = self.book.answers(how, model)
        screening: list[str] = []
        for use, change in work.steps:
            for screen in change.screens:
                verdicts = None
                if screen.guard is not None:
                    verdicts = self.book.judge(screen.guard, benchmark, responses)
                    screening.append(verdicts)
                responses = self.book.screen(use, benchmark, responses, verdicts)
                screening.append(responses)
        measured = tuple(
            JudgeKey(judge, self.book.catalogue.measures(judge), self.book.judge(judge, benchmark, responses))
            for judge in wanted.judges
        )
        prompts = self.book.catalogue.benchmark(benchmark).prompts
        return Evaluation(role, benchmark, prompts, generate, tuple(screening), measured)

    def _baseline(self, recipe: Recipe, system: str | None, work: Changes, chain: _Chain) -> PlannedCell:
        """The starting model, untuned and asked without the cell's mitigations: same prompts, decoding and judges.

        Its recipe has the mitigations that made the starting model, and no other.
        """
        makers = tuple(use for use, change in work.steps if change.before)  # they are what tells starting models apart
        seed = recipe.seed if makers or recipe.generate.temperature > 0 else 0
        untuned = recipe.model_copy(
            update={
                "data": None,
                "tune": None,
                "mitigations": makers,
                "seed": seed,
                "generate": recipe.generate.model_copy(update={"system": system or ""}),
            }
        )
        stages = _upto(chain)
        memo = (untuned, stages)
        if memo not in self._untuned:
            source = recipe.data.source if recipe.data is not None else None
            evaluations = self._evaluations(untuned, Changes((), None, system), chain.start)
            made = f" after {', '.join(map(str, makers))} seed={seed}" if makers else ""
            theirs = f"of {source}" if recipe.generate.system is None else brief(system)
            prompted = f", system prompt {theirs}" if system else ""
            self._untuned[memo] = PlannedCell(
                cell_id=_cell_id(evaluations),
                label=f"untuned {recipe.model}{made}{prompted}",
                cell=Cell((), untuned),
                system=system,
                tier=None,
                chain=stages,
                model=chain.start,
                tune=None,
                evaluations=evaluations,
                origin=CellOrigin.BASELINE,
            )
        return self._untuned[memo]

    def _twin(self, cell: Cell) -> tuple[PlannedCell, tuple[PlannedCell, ...]]:
        """The same cell without its mitigations, and the cells that it is paired with in turn."""
        recipe = cell.recipe.model_copy(update={"mitigations": ()})
        if recipe not in self._twins:
            twin, its_own = self.plan_cell(Cell(tuple(_without(cell.coordinates)), recipe))
            self._twins[recipe] = replace(twin, origin=CellOrigin.UNMITIGATED), its_own
        return self._twins[recipe]


def _without(coordinates: Iterable[tuple[str, Level]]) -> Iterable[tuple[str, Level]]:
    """Yield a cell's coordinates as they are without its mitigations."""
    for path, level in coordinates:
        if path == MITIGATIONS:
            yield path, ()
        elif not path.startswith(f"{MITIGATIONS}."):
            yield path, level


def _upto(chain: _Chain) -> tuple[str, ...]:
    """Return the stages of a chain up to the starting model."""
    stages = tuple(chain.stages)
    return () if chain.start is None else stages[: stages.index(chain.start) + 1]


def _cell_id(evaluations: Sequence[Evaluation]) -> str:
    last = ",".join(judge.key for evaluation in evaluations for judge in evaluation.judges)
    return f"cell-{hashlib.sha256(last.encode()).hexdigest()[:CELL_DIGITS]}"
