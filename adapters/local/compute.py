"""How long a local stage may take: a forecast from floating-point operations, before anything has been measured.

Operations per token: 6 x parameters in training, 2 x parameters in generation (Kaplan et al. 2020, arXiv 2001.08361,
section 2.1). The rates below are what small batches reach, not peaks; the forecast is corrected by the first stages
that finish.
"""

from __future__ import annotations

from dataclasses import dataclass

TRAIN_FLOP_PER_WEIGHT = 6
GENERATE_FLOP_PER_WEIGHT = 2
ASSUMED_PARAMETERS = 7_000_000_000
"""Used where the number of weights is unknown: the size of the paper's open model, Llama-2-7b-Chat."""


@dataclass(frozen=True, slots=True)
class Rate:
    """What a device sustains on small batches.

    Attributes:
        flop_per_second: Floating-point operations per second.
        seconds_per_step: Fixed cost of one forward (and backward) pass, as a part of a batch of many models.
        seconds_per_stage: Fixed cost of a stage: attaching an adapter, writing files.
        solo_seconds_per_step: What a step costs beside, with a trainer of its own.
        solo_seconds_per_stage: What such a trainer costs.
    """

    flop_per_second: float
    seconds_per_step: float
    seconds_per_stage: float
    solo_seconds_per_step: float
    solo_seconds_per_stage: float


SMALL = Rate(
    flop_per_second=4.0e10,
    seconds_per_step=0.001,
    seconds_per_stage=0.01,
    solo_seconds_per_step=0.018,
    solo_seconds_per_stage=0.35,
)
"""One CPU core and the stand-in: stages of the quickstart, with both backends, on a two-core machine, 2026-11-22."""

LARGE = Rate(
    flop_per_second=1.0e14,
    seconds_per_step=0.03,
    seconds_per_stage=2.0,
    solo_seconds_per_step=0.0,
    solo_seconds_per_stage=0.0,
)
"""A data-centre GPU in bfloat16 at a quarter of its peak; an assumption until a stage has been measured."""

LARGE_FROM = 100_000_000
"""Weights from which on a model is assumed to run on a GPU."""


def seconds(parameters: int | None, tokens: int, passes: int, flop_per_weight: int, *, is_solo: bool = False) -> float:
    """Return the expected device-seconds of a stage.

    Args:
        parameters: Number of weights; None when unknown.
        tokens: Tokens that go through the model.
        passes: Forward passes (optimizer micro-steps, or decoding steps).
        flop_per_weight: `TRAIN_FLOP_PER_WEIGHT` or `GENERATE_FLOP_PER_WEIGHT`.
        is_solo: Whether it is computed with a trainer of its own, and not in a batch of many models.
    """
    weights = ASSUMED_PARAMETERS if parameters is None else parameters
    rate = SMALL if weights < LARGE_FROM else LARGE
    solo = rate.solo_seconds_per_stage + passes * rate.solo_seconds_per_step if is_solo else 0.0
    fixed = rate.seconds_per_stage + passes * rate.seconds_per_step
    return solo + fixed + flop_per_weight * weights * tokens / rate.flop_per_second
