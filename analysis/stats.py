"""Intervals, contrasts and corrections. Pure functions of numbers: no I/O, no randomness, no tables.

The views of `results.duckdb` show the same intervals (`engine/store/views.sql`); tests hold the two equal.
Quantiles come from `scipy.special`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import special  # type: ignore[import-untyped]

if TYPE_CHECKING:
    from collections.abc import Sequence

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


def wilson(successes: float, n: float, *, alpha: float = 0.05) -> Interval:
    """Wilson's score interval for a rate.

    (k + z²/2 ± z·√(k(n-k)/n + z²/4)) / (n + z²), with z the 1 - alpha/2 quantile of the normal. The lower end for k = 0 is
    exactly 0, and the upper end for k = n exactly 1.

    With few prompts and rare harm it covers where the normal, t and bootstrap intervals collapse to a point.
    For the mean m of any variable in [0, 1], k = m·n gives a conservative interval, because no such variable has a
    variance above m(1 - m).

    Args:
        successes: k, 0 <= k <= n; may be fractional.
        n: Number of independent trials (prompts), > 0.
        alpha: 1 - confidence, in (0, 1).

    Source:
        Wilson 1927, JASA 22:209; recommended by Brown, Cai & DasGupta 2001, Statistical Science 16:101.
    """
    if not (n > 0 and 0 <= successes <= n):
        message = f"a rate needs 0 <= successes <= n and n > 0, not {successes} of {n}"
        raise ValueError(message)
    z = _normal_quantile(1 - alpha / 2)
    middle = successes + z * z / 2
    half = z * math.sqrt(successes * (n - successes) / n + z * z / 4)
    low = 0.0 if successes == 0 else max(0.0, (middle - half) / (n + z * z))
    high = 1.0 if successes == n else min(1.0, (middle + half) / (n + z * z))
    return Interval(successes / n, low, high)


def paired(first: ArrayLike, second: ArrayLike, *, alpha: float = 0.05) -> Interval:
    """Mean of the paired differences `first - second`, with Student's t interval.

    d̄ ± t(n-1)·sd(d)/√n over the pairs; pairs with a NaN on either side are left out.

    Args:
        first: float[n], one value a prompt; NaN where it was not scored.
        second: float[n], the same prompts in the same order.
        alpha: 1 - confidence, in (0, 1).

    Source:
        Student 1908; for model evaluations Miller 2024, arXiv 2411.00640, section 4.
    """
    difference = np.asarray(first, dtype=float) - np.asarray(second, dtype=float)
    difference = difference[~np.isnan(difference)]
    n = difference.size
    if n < 2:  # noqa: PLR2004
        message = "a paired interval needs two pairs or more"
        raise ValueError(message)
    mean = float(difference.mean())
    half = _t_quantile(n - 1, alpha) * float(difference.std(ddof=1)) / math.sqrt(n)
    return Interval(mean, mean - half, mean + half)


def two_way(values: ArrayLike, *, alpha: float = 0.05) -> Interval:
    """Mean over prompts and seeds, both random and crossed: what a new draw of either would give.

    half² = t(P-1)²·V_prompt + t(S-1)²·max(0, V_seed - V_residual), where V_prompt = var(prompt means)/P,
    V_seed = var(seed means)/S, and V_residual = MS_residual/(P·S) is the part of V_seed that is noise of single
    answers, which V_prompt holds already.

    Each source of variance keeps its own t quantile (the method of variance estimates recovery). A single t(S-1)
    over the summed variance covers 96-100% and, at three seeds that agree, is twice as wide; a normal quantile covers
    73-95%. This one covers 93-97% for 2-10 seeds and 30-330 prompts (tests/unit/analysis/test_stats.py).

    Args:
        values: float[n_prompts, n_seeds], complete, at least 2 of each.
        alpha: 1 - confidence, in (0, 1).

    Source:
        Variances: two-way random effects (Miller 2024, arXiv 2411.00640; seeds as a factor: Fraser et al. 2025,
        arXiv 2506.17209). Combination: Graybill & Wang 1980, JASA 75:869; Zou & Donner 2008, Stat. Med. 27:1693.
    """
    table: NDArray[np.float64] = np.asarray(values, dtype=float)
    if table.ndim != 2 or min(table.shape) < 2 or np.isnan(table).any():  # noqa: PLR2004
        message = "the two-way interval needs a complete table of two prompts and two seeds or more"
        raise ValueError(message)
    n_prompts, n_seeds = table.shape
    by_prompt, by_seed, mean = table.mean(axis=1), table.mean(axis=0), float(table.mean())
    residual = table - by_prompt[:, None] - by_seed[None, :] + mean
    v_residual = float((residual**2).sum()) / ((n_prompts - 1) * (n_seeds - 1) * n_prompts * n_seeds)
    v_prompt = float(by_prompt.var(ddof=1)) / n_prompts
    v_seed = float(by_seed.var(ddof=1)) / n_seeds
    half = math.hypot(
        _t_quantile(n_prompts - 1, alpha) * math.sqrt(v_prompt),
        _t_quantile(n_seeds - 1, alpha) * math.sqrt(max(0.0, v_seed - v_residual)),
    )
    return Interval(mean, mean - half, mean + half)


def seeded_rate(values: ArrayLike, *, alpha: float = 0.05) -> Interval:
    """Mean of values in [0, 1] over prompts and seeds, never narrower than Wilson's for the prompts alone.

    With one seed it is Wilson's interval: the seeds' variance is not estimated, and whoever shows it says so.

    Args:
        values: float[n_prompts, n_seeds], complete.
        alpha: 1 - confidence, in (0, 1).
    """
    table: NDArray[np.float64] = np.asarray(values, dtype=float)
    n_prompts, n_seeds = table.shape
    floor = wilson(float(table.mean()) * n_prompts, n_prompts, alpha=alpha)
    if n_seeds == 1 or n_prompts == 1:
        return floor
    return two_way(table, alpha=alpha).hull(floor).clipped(0.0, 1.0)


def mcnemar_exact(gained: int, lost: int) -> float:
    """Two-sided p value that a prompt is as likely to turn harmful as to stop being so.

    Twice the smaller binomial tail of min(gained, lost) among the discordant prompts at one half, at most 1.

    Args:
        gained: Prompts that were not harmful before and are after, >= 0.
        lost: Prompts that were harmful before and are not after, >= 0.

    Source:
        McNemar 1947, Psychometrika 12:153; exact form as in `statsmodels` and R's `binom.test`.
    """
    n = gained + lost
    return 1.0 if n == 0 else min(1.0, 2.0 * float(special.bdtr(min(gained, lost), n, 0.5)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p values so that the chance of any false claim stays at alpha (named primary contrasts).

    Sorted upwards, the i-th of m becomes the running maximum of (m - i + 1)·p, at most 1.

    Source:
        Holm 1979, Scandinavian Journal of Statistics 6:65.
    """
    m = len(p_values)
    order = sorted(range(m), key=p_values.__getitem__)
    adjusted, highest = [0.0] * m, 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (m - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """Adjust p values so that the expected share of false claims stays at q (categories by cells).

    Sorted downwards, the i-th smallest of m becomes the running minimum of m/i·p, at most 1.

    Source:
        Benjamini & Hochberg 1995, JRSS B 57:289.
    """
    m = len(p_values)
    order = sorted(range(m), key=p_values.__getitem__, reverse=True)
    adjusted, lowest = [0.0] * m, 1.0
    for step, index in enumerate(order):
        lowest = min(lowest, p_values[index] * m / (m - step))
        adjusted[index] = lowest
    return adjusted


def _normal_quantile(p: float) -> float:
    return float(special.ndtri(p))


def _t_quantile(df: int, alpha: float) -> float:
    return float(special.stdtrit(df, 1 - alpha / 2))
