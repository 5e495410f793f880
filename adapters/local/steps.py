"""How many optimizer steps a training run takes."""

from __future__ import annotations

import math

from adapters.local.settings import SftSettings
from engine.domain.sweep import Length


def steps_per_epoch(settings: SftSettings, items: int) -> int:
    """Return the optimizer steps of one epoch over `items` rows; the last batch and the last group may be ragged."""
    return math.ceil(math.ceil(items / settings.batch_size) / settings.grad_accum)


def total_steps(settings: SftSettings, length: Length, items: int) -> int:
    """Return the optimizer steps of a run of some length over `items` rows."""
    return length.in_steps(steps_per_epoch(settings, items))
