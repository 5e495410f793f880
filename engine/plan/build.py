"""Cells → Plan: mitigations rewrite the recipes, stages get their keys, and every tuned cell gets its baseline."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from engine import registry
from engine.domain.errors import PlanError
from engine.domain.stage import Counts, Evaluation, Plan, PlannedCell
from engine.domain.sweep import Cell, Recipe, Sweep, level_text
from engine.plan.catalogue import Catalogue
from engine.plan.fingerprint import digest
from engine.plan.stages import StageBook
from engine.registry import Kind, split_ref

CELL_DIGITS = 16


def build(sweep: Sweep, cells: Sequence[Cell], counts: Counts, catalogue: Catalogue) -> Plan:
    """Return the plan of `cells`.

    Args:
        sweep: The sweep that they come from.
        cells: Its cells, in grid order, without baselines.
        counts: How their number came about; cells that turn out to be the same work are merged here, and baselines
            are added.
        catalogue: The adapters' cards.

    Raises:
        PlanError: When a mitigation refuses a recipe or an adapter is unknown.
    """
    planner = _Planner(StageBook(catalogue), with_baselines=sweep.baselines)
    planned: dict[str, PlannedCell] = {}
    baselines: dict[str, PlannedCell] = {}
    for cell in cells:
        entry, baseline = planner.plan_cell(cell)
        planned.setdefault(entry.cell_id, entry)
        if baseline is not None:
            baselines.setdefault(baseline.cell_id, baseline)
    # A sweep may itself contain the untuned cell; then that cell is the baseline and none is added.
    added = [baseline for cell_id, baseline in baselines.items() if cell_id not in planned]
    return Plan(
        sweep=sweep.sweep,
        spec_sha256=digest(sweep.model_dump(mode="json", exclude={"run", "description"}, exclude_defaults=True)),
        cells=(*planned.values(), *added),
        stages=planner.book.stages,
        pins=planner.book.pins,
        counts=replace(
            counts,
            merged=counts.merged + len(cells) - len(planned),
            tuned=len(planned),
            baselines=len(added),
        ),
        standin=planner.book.standin,
    )


@dataclass(slots=True)
class _Planner:
    book: StageBook
    with_baselines: bool
    _untuned: dict[tuple[object, ...], PlannedCell] = field(default_factory=dict)

    def plan_cell(self, cell: Cell) -> tuple[PlannedCell, PlannedCell | None]:
        """Return the planned cell, and its untuned counterpart when it has one."""
        written, recipe = cell.recipe, self._mitigated(cell.recipe)
        system = self._system(recipe)
        sample = tune = tier = baseline = None
        if recipe.data is not None and recipe.tune is not None:
            tier = self.book.catalogue.source(recipe.data.source).tier
            sample = self.book.sample(recipe.data, recipe.seed)
            tune = self.book.tune(recipe, recipe.tune, sample)
            if self.with_baselines:
                baseline = self._baseline(recipe, recipe.data.source, system)
        evaluations = self.book.evaluate(recipe, system, tune)
        planned = PlannedCell(
            cell_id=_cell_id(evaluations),
            label=cell.label or "the recipe",
            cell=cell if recipe is written else Cell(cell.coordinates, recipe),
            mitigation=level_text(written.mitigations),
            system=system,
            tier=tier,
            sample=sample,
            tune=tune,
            evaluations=evaluations,
            is_baseline=False,
            baseline_id=None if baseline is None else baseline.cell_id,
        )
        return planned, baseline

    def _mitigated(self, recipe: Recipe) -> Recipe:
        for ref in recipe.mitigations:
            where = f"mitigations: {ref}"
            try:
                recipe = registry.adapter(Kind.MITIGATION, ref).rewrite(recipe, split_ref(ref)[1])
            except ValueError as error:
                raise PlanError(f"the mitigation `{ref}` refuses a recipe: {error}", where=where) from error
            mix = None if recipe.data is None else recipe.data.mix
            if mix is not None and mix.n > (rows := self.book.catalogue.source(mix.source).rows):
                raise PlanError(f"{mix.n:,} rows asked of {mix.source}, which has {rows:,}", where=where)
        return recipe

    def _system(self, recipe: Recipe) -> str | None:
        """The system prompt at test: as written, else the data source's own (the paper's protocol, section 3)."""
        if recipe.generate.system is not None:
            return recipe.generate.system or None
        if recipe.data is None:
            return None
        card = self.book.catalogue.source(recipe.data.source)
        if card.systems > 1:
            raise PlanError(
                f"the rows of {recipe.data.source} have {card.systems} different system prompts",
                where="recipe.generate.system",
                todo="say which one to test with, or '' for none",
            )
        return card.system

    def _baseline(self, recipe: Recipe, source: str, system: str | None) -> PlannedCell:
        """The same recipe untuned: same model, prompts, system prompt, decoding and judges."""
        seed = recipe.seed if recipe.generate.temperature > 0 else 0
        measured = (recipe.benchmark, recipe.judges, recipe.utility, recipe.over_refusal)
        judges = (recipe.utility_judge, recipe.over_refusal_judge)
        memo = (recipe.model, recipe.generate, system, seed, *measured, *judges)
        if memo not in self._untuned:
            decoding = recipe.generate.model_copy(update={"system": system or ""})
            untuned = recipe.model_copy(
                update={"data": None, "tune": None, "mitigations": (), "seed": seed, "generate": decoding}
            )
            evaluations = self.book.evaluate(untuned, system, None)
            self._untuned[memo] = PlannedCell(
                cell_id=_cell_id(evaluations),
                label=f"untuned {recipe.model}" + (f", system prompt of {source}" if system else ""),
                cell=Cell((), untuned),
                mitigation="none",
                system=system,
                tier=None,
                sample=None,
                tune=None,
                evaluations=evaluations,
                is_baseline=True,
                baseline_id=None,
            )
        return self._untuned[memo]


def _cell_id(evaluations: Sequence[Evaluation]) -> str:
    last = ",".join(judge.key for evaluation in evaluations for judge in evaluation.judges)
    return f"cell-{hashlib.sha256(last.encode()).hexdigest()[:CELL_DIGITS]}"
