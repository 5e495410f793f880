"""How many optimizer steps a training run takes."""

from __future__ import annotations

import math

from engine.domain.sweep import TuneRecipe


def steps_per_epoch(settings: TuneRecipe, items: int) -> int:
    """Return the optimizer steps of one epoch over `items` rows; the last batch and the last group may be ragged."""
    return math.ceil(math.ceil(items / settings.batch_size) / settings.grad_accum)


def total_steps(settings: TuneRecipe, items: int) -> int:
    """Return the optimizer steps of a whole run; `max_steps` only ever cuts it short."""
    steps = steps_per_epoch(settings, items) * settings.epochs
    return steps if settings.max_steps is None else min(steps, settings.max_steps)
