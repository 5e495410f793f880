"""A plan as rows of the control plane's tables: columns in the order of state.sql and tables.sql."""

from __future__ import annotations

import json
from collections.abc import Iterator

from engine import registry
from engine.domain.adapters import Kind
from engine.domain.stage import Plan, PlannedCell, Stage, StageState
from engine.domain.sweep import Recipe, TuneRecipe

Row = tuple[object, ...]


def cell_rows(plan: Plan) -> Iterator[Row]:
    """Yield a row of `cells` for every planned cell."""
    for position, planned in enumerate(plan.cells):
        recipe = planned.cell.recipe
        yield (
            position,
            planned.cell_id,
            planned.label,
            recipe.model,
            *_dose(planned, recipe),
            *_training(recipe.tune),
            recipe.seed,
            planned.mitigation,
            recipe.benchmark,
            recipe.generate.temperature,
            recipe.generate.max_new_tokens,
            planned.system is not None,
            planned.is_baseline,
            planned.baseline_id,
            planned.sample,
            planned.tune,
            json.dumps(recipe.model_dump(mode="json"), ensure_ascii=False),
        )


def _dose(planned: PlannedCell, recipe: Recipe) -> Row:
    """data_source, data_tier, n_examples, epochs, lr, lr_multiplier: an untuned cell took no dose."""
    data, tune = recipe.data, recipe.tune
    if data is None or tune is None:
        return (None, None, 0, 0, None, None)
    return (data.source, planned.tier, data.n, tune.epochs, tune.lr, tune.lr_multiplier)


def _training(tune: TuneRecipe | None) -> Row:
    """batch_size, grad_accum, schedule, warmup_steps, method, rank."""
    if tune is None:
        return (None,) * 6
    if tune.adapter in registry.names(Kind.PROVIDER):  # it decides the rest, and does not say how
        return (tune.batch_size, None, None, None, None, None)
    rank = tune.rank if tune.method == "lora" else None
    return (tune.batch_size, tune.grad_accum, tune.schedule, tune.warmup_steps, tune.method, rank)


def evaluation_rows(plan: Plan) -> Iterator[Row]:
    """Yield a row of `evaluations` for every cell and benchmark."""
    for cell in plan.cells:
        for evaluation in cell.evaluations:
            yield (cell.cell_id, evaluation.role, evaluation.benchmark, evaluation.n_prompts, evaluation.generate)


def judgement_rows(plan: Plan) -> Iterator[Row]:
    """Yield a row of `judgements` for every cell, benchmark and judge."""
    for cell in plan.cells:
        for evaluation in cell.evaluations:
            for ordinal, judge in enumerate(evaluation.judges):
                yield (cell.cell_id, evaluation.role, judge.judge, ordinal, judge.measures, judge.key)


def cell_stage_rows(plan: Plan) -> Iterator[Row]:
    """Yield a row of `cell_stages` for every cell and stage."""
    for cell in plan.cells:
        for key in cell.stage_keys():
            yield (cell.cell_id, key)


def pin_rows(plan: Plan) -> Iterator[Row]:
    """Yield a row of `pins` for everything pinned."""
    for pin in plan.pins:
        yield (pin.kind, pin.ref, pin.pin, pin.detail)


def stage_row(stage: Stage, account: str | None) -> Row:
    """Return a fresh row of state.sqlite's `stages`: pending, planned, nothing tried.

    Args:
        stage: The stage.
        account: The provider's account that it runs on; None for one that runs here.
    """
    inputs = json.dumps(stage.inputs)
    return (
        stage.key,
        stage.kind,
        stage.adapter,
        account,
        stage.revision,
        StageState.PENDING,
        None,
        0,
        stage.settings,
        inputs,
        1,
        None,
    )
