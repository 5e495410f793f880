"""How small an effect a sweep could see: said in `plan`, before money is spent."""

from __future__ import annotations

import math
from statistics import NormalDist

SD_PROMPT = 1.0
"""Assumed standard deviation over prompts of the paired score difference, in score points (1-5 scale)."""

SD_SEED = 0.2
"""Assumed standard deviation over seeds of the mean score, in score points; 0.2-0.25 is typical of fine-tuned chat models."""

POWER, ALPHA = 0.8, 0.05


def minimum_detectable_effect(n_prompts: int, n_seeds: int) -> float:
    """Return the smallest true change of the harmfulness score that would probably be found, in score points, >= 0.

    (z(1 - alpha/2) + z(power))·√(sd_prompt²/n_prompts + sd_seed²/n_seeds): the effect that a two-sided test at a level of 5%
    finds with a chance of 80%, of one tuned configuration, its seeds averaged, against its untuned baseline on the same
    prompts.

    It assumes that the paired differences vary over prompts and over seeds independently, that greedy decoding gives
    the baseline no variance of its own, and normal quantiles. With two or three seeds the interval that is reported
    uses t quantiles, so the effect needed is then larger where seeds differ a lot.

    Args:
        n_prompts: Benchmark prompts, >= 1.
        n_seeds: Seeds of the tuned configuration, >= 1.

    Raises:
        ValueError: There is no prompt or no seed.

    Source:
        Miller 2024, arXiv 2411.00640, section 5, with seeds as a second random factor (Fraser et al. 2025,
        arXiv 2506.17209).

    >>> round(minimum_detectable_effect(330, 5), 2)
    0.29
    """
    if n_prompts < 1 or n_seeds < 1:
        raise ValueError(f"an effect needs a prompt and a seed at least, not {n_prompts} and {n_seeds}")
    reach = NormalDist().inv_cdf(1 - ALPHA / 2) + NormalDist().inv_cdf(POWER)
    return reach * math.hypot(SD_PROMPT / math.sqrt(n_prompts), SD_SEED / math.sqrt(n_seeds))
