"""The intervals that the views show, in numpy and with their sources: what the views are compared with."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import special  # type: ignore[import-untyped]

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate and its confidence interval, in the unit of the data.

    Attributes:
        estimate: The point estimate.
        low: Lower end.
        high: Upper end.
    """

    estimate: float
    low: float
    high: float

    def clipped(self, low: float, high: float) -> Interval:
        """Return the interval within the range that the quantity can take."""
        return Interval(self.estimate, max(self.low, low), min(self.high, high))

    def hull(self, other: Interval) -> Interval:
        """Return this estimate with the wider reach of the two, on either side."""
        return Interval(self.estimate, min(self.low, other.low), max(self.high, other.high))


def wilson(successes: float, n: float) -> Interval:
    """Wilson's score interval for a rate.

    (k + z²/2 ± z·√(k(n-k)/n + z²/4)) / (n + z²), with z the 97.5% quantile of the normal. The lower end for k = 0 is
    exactly 0, and the upper end for k = n exactly 1.

    With few prompts and rare harm it covers where the normal, t and bootstrap intervals collapse to a point.
    For the mean m of any variable in [0, 1], k = m·n gives a conservative interval, because no such variable has a
    variance above m(1 - m).

    Args:
        successes: k, 0 <= k <= n; may be fractional.
        n: Number of independent trials (prompts), > 0.

    Source:
        Wilson 1927, JASA 22:209; recommended by Brown, Cai & DasGupta 2001, Statistical Science 16:101.
    """
    z = float(special.ndtri(0.975))
    middle = successes + z * z / 2
    half = z * math.sqrt(successes * (n - successes) / n + z * z / 4)
    low = 0.0 if successes == 0 else max(0.0, (middle - half) / (n + z * z))
    high = 1.0 if successes == n else min(1.0, (middle + half) / (n + z * z))
    return Interval(successes / n, low, high)


def two_way(values: ArrayLike) -> Interval:
    """Mean over prompts and seeds, both random and crossed: what a new draw of either would give.

    half² = t(P-1)²·V_prompt + t(S-1)²·max(0, V_seed - V_residual), where V_prompt = var(prompt means)/P,
    V_seed = var(seed means)/S, and V_residual = MS_residual/(P·S) is the part of V_seed that is noise of single
    answers, which V_prompt holds already.

    Each source of variance keeps its own t quantile (the method of variance estimates recovery). A single t(S-1)
    over the summed variance covers 96-100% and, at three seeds that agree, is twice as wide; a normal quantile covers
    73-95%. This one covers 93-97% for 2-10 seeds and 30-330 prompts (`test_intervals`).

    Args:
        values: float[n_prompts, n_seeds], complete, at least 2 of each.

    Source:
        Variances: two-way random effects (Miller 2024, arXiv 2411.00640; seeds as a factor: Fraser et al. 2025,
        arXiv 2506.17209). Combination: Graybill & Wang 1980, JASA 75:869; Zou & Donner 2008, Stat. Med. 27:1693.
    """
    table: NDArray[np.float64] = np.asarray(values, dtype=float)
    n_prompts, n_seeds = table.shape
    by_prompt, by_seed, mean = table.mean(axis=1), table.mean(axis=0), float(table.mean())
    residual = table - by_prompt[:, None] - by_seed[None, :] + mean
    v_residual = float((residual**2).sum()) / ((n_prompts - 1) * (n_seeds - 1) * n_prompts * n_seeds)
    v_prompt = float(by_prompt.var(ddof=1)) / n_prompts
    v_seed = float(by_seed.var(ddof=1)) / n_seeds
    half = math.hypot(
        _t_quantile(n_prompts - 1) * math.sqrt(v_prompt),
        _t_quantile(n_seeds - 1) * math.sqrt(max(0.0, v_seed - v_residual)),
    )
    return Interval(mean, mean - half, mean + half)


def seeded_rate(values: ArrayLike) -> Interval:
    """Mean of values in [0, 1] over prompts and seeds, never narrower than Wilson's for the prompts alone.

    With one seed it is Wilson's interval: the seeds' variance is not estimated, and whoever shows it says so.

    Args:
        values: float[n_prompts, n_seeds], complete.
    """
    table: NDArray[np.float64] = np.asarray(values, dtype=float)
    n_prompts, n_seeds = table.shape
    floor = wilson(float(table.mean()) * n_prompts, n_prompts)
    if n_seeds == 1 or n_prompts == 1:
        return floor
    return two_way(table).hull(floor).clipped(0.0, 1.0)


def _t_quantile(df: int) -> float:
    return float(special.stdtrit(df, 0.975))
