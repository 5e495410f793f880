"""How small an effect a sweep could see: said in `plan`, before money is spent. Standard library only."""

from __future__ import annotations

import math
from statistics import NormalDist


def minimum_detectable_effect(
    n_prompts: int,
    n_seeds: int,
    *,
    sd_prompt: float = 1.0,
    sd_seed: float = 0.2,
    power: float = 0.8,
    alpha: float = 0.05,
) -> float:
    """Return the smallest true change of the harmfulness score that would probably be found.

    (z(1 - alpha/2) + z(power))·√(sd_prompt²/n_prompts + sd_seed²/n_seeds): the effect of a two-sided test of one tuned
    configuration, its seeds averaged, against its untuned baseline on the same prompts.

    It assumes that the paired differences vary over prompts and over seeds independently, that greedy decoding gives
    the baseline no variance of its own, and normal quantiles. With two or three seeds the interval that is reported
    uses t quantiles, so the effect needed is then larger where seeds differ a lot.

    Args:
        n_prompts: Benchmark prompts, >= 1.
        n_seeds: Seeds of the tuned configuration, >= 1.
        sd_prompt: Standard deviation over prompts of the paired score difference, in score points (1-5 scale), >= 0.
        sd_seed: Standard deviation over seeds of the mean score, in score points, >= 0; 0.2-0.25 is typical of
            fine-tuned chat models.
        power: Chance of finding it, in (0, 1).
        alpha: Two-sided level of the test, in (0, 1).

    Returns:
        The effect in score points, >= 0.

    Raises:
        ValueError: When there is no prompt or no seed.

    Source:
        Miller 2024, arXiv 2411.00640, section 5, with seeds as a second random factor (Fraser et al. 2025,
        arXiv 2506.17209).

    >>> round(minimum_detectable_effect(330, 5), 2)
    0.29
    """
    if n_prompts < 1 or n_seeds < 1:
        message = f"an effect needs a prompt and a seed at least, not {n_prompts} and {n_seeds}"
        raise ValueError(message)
    normal = NormalDist()
    reach = normal.inv_cdf(1 - alpha / 2) + normal.inv_cdf(power)
    return reach * math.hypot(sd_prompt / math.sqrt(n_prompts), sd_seed / math.sqrt(n_seeds))
