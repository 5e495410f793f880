"""A plan as rows of the control plane's tables, by the names of their columns."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import lru_cache
from itertools import chain

from engine.domain.adapters import Use
from engine.domain.plan import Evaluation, Plan, PlannedCell
from engine.domain.stage import Stage, StageKind, StageState
from engine.domain.sweep import Recipe
from engine.store.settings import Setting, config_id, read, variants

Row = dict[str, object]


@lru_cache(maxsize=1024)
def _text(use: Use) -> str:
    """Return an adapter as people write it: every cell and stage asks for the same few."""
    return str(use)


def cell_rows(plan: Plan) -> tuple[list[Row], list[Row]]:
    """Return the rows of `cells`, and those of `settings`: each setting once, whatever cells have it."""
    recipes, settings = read(planned.cell.recipe for planned in plan.cells)
    numbers, distinct = _numbered(settings)
    cells = []
    for position, (planned, variant) in enumerate(zip(plan.cells, variants(plan.cells, settings), strict=True)):
        recipe = recipes[position]
        identity: Row = {
            "position": position,
            "cell_id": planned.cell_id,
            "config_id": config_id(recipe, planned.system),
            "label": planned.label,
            "variant": variant,
            "origin": planned.origin.value,
            "baseline_cell_id": planned.baseline_id,
            "unmitigated_cell_id": planned.unmitigated_id,
            "recipe": json.dumps(recipe, ensure_ascii=False),
            "settings": str([numbers[id(one)] for one in settings[position]]),
        }
        cells.append(identity | _dose(planned) | _test(planned, planned.cell.recipe))
    return cells, distinct


def _numbered(settings: list[list[Setting]]) -> tuple[dict[int, int], list[Row]]:
    """Return the number of each setting by the object's id, and a row for each number, from 0."""
    numbers: dict[int, int] = {}
    known: dict[tuple[str, str | None, str], int] = {}
    for one in chain.from_iterable(settings):
        if id(one) not in numbers:
            content = (one.path, one.adapter or None, json.dumps(one.value, ensure_ascii=False))
            numbers[id(one)] = known.setdefault(content, len(known))
    rows = zip(known.values(), known, strict=True)
    return numbers, [
        {"setting_id": number, "path": path, "adapter": adapter, "value": value}
        for number, (path, adapter, value) in rows
    ]


def _dose(planned: PlannedCell) -> Row:
    """What it was tuned on, and how long: an untuned cell took no dose."""
    data, tune = planned.cell.recipe.data, planned.cell.recipe.tune
    length = None if tune is None else tune.length
    return {
        "model": _text(planned.cell.recipe.model),
        "data_source": data and _text(data.source),
        "data_tier": planned.tier,
        "n_examples": data.n if data else 0,
        "epochs": length.epochs if length else 0,
        "steps": length and length.steps,
        "max_steps": length and length.max_steps,
        "tuner": tune and tune.use.name,
        "model_key": planned.model,
        "tune_key": planned.tune,
    }


def _test(planned: PlannedCell, recipe: Recipe) -> Row:
    """How the model is asked."""
    decoding = recipe.generate.decoding
    return {
        "seed": recipe.seed,
        "benchmark": _text(recipe.benchmark),
        "max_new_tokens": decoding.max_new_tokens,
        "temperature": decoding.temperature,
        "top_p": decoding.top_p,
        "samples": decoding.samples,
        "has_system_prompt": planned.system is not None,
        "generator": recipe.generate.use.name,
    }


def mitigation_rows(plan: Plan) -> Iterator[Row]:
    """Yield one row of `cell_mitigations` per cell and mitigation."""
    for cell in plan.cells:
        for position, use in enumerate(cell.cell.recipe.mitigations):
            yield {"cell_id": cell.cell_id, "position": position, "name": use.name, "text": str(use)}


def evaluation_rows(plan: Plan) -> Iterator[Row]:
    """Yield one row of `evaluations` per cell and benchmark."""
    for cell in plan.cells:
        for evaluation in cell.evaluations:
            yield {
                "cell_id": cell.cell_id,
                "role": evaluation.role.value,
                "benchmark": _text(evaluation.benchmark),
                "n_prompts": evaluation.n_prompts,
                "generate_key": evaluation.generate,
                "responses_key": _responses_key(plan, evaluation),
            }


def _responses_key(plan: Plan, evaluation: Evaluation) -> str:
    """Return the stage whose responses are judged: the last screen, or the generation where nothing is screened."""
    screens = (key for key in reversed(evaluation.screening) if plan.stages[key].kind is StageKind.SCREEN)
    return next(screens, evaluation.generate)


def judgement_rows(plan: Plan) -> Iterator[Row]:
    """Yield one row of `judgements` per cell, benchmark and judge."""
    for cell in plan.cells:
        for evaluation in cell.evaluations:
            for ordinal, judge in enumerate(evaluation.judges):
                yield {
                    "cell_id": cell.cell_id,
                    "role": evaluation.role.value,
                    "judge": _text(judge.judge),
                    "ordinal": ordinal,
                    "measures": judge.measures.value,
                    "judge_key": judge.key,
                }


def cell_stage_rows(plan: Plan) -> Iterator[Row]:
    """Yield one row of `cell_stages` per cell and stage, inputs before what needs them."""
    for cell in plan.cells:
        for position, key in enumerate(dict.fromkeys(cell.stages)):
            yield {"cell_id": cell.cell_id, "position": position, "stage_key": key}


def stage_row(stage: Stage, account: str | None) -> Row:
    """Return a fresh row of state.sqlite's `stages`: pending, planned, nothing tried.

    Args:
        stage: The stage.
        account: The provider's account that it runs on; None for one that runs here.
    """
    return {
        "stage_key": stage.key,
        "kind": stage.kind.value,
        "adapter": stage.adapter,
        "account": account,
        "revision": stage.revision,
        "state": StageState.PENDING.value,
        "attempts": 0,
        "payload": stage.payload,
        "inputs": json.dumps(stage.needs),
        "planned": 1,
    }
