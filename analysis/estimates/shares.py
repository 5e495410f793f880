"""Shares of items that come in clusters, such as replies to one prompt: estimate, interval, and a test of equality.

Items of a cluster are alike, so that n of them tell less than n independent ones. How much less is the design effect, the
ratio of the clustered variance of the share to the binomial one (Kish 1965); n divided by it is the effective number.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Flags: TypeAlias = NDArray[np.bool_]
Codes: TypeAlias = NDArray[np.int64]

LEVEL = 0.95
Z = float(stats.norm.ppf((1 + LEVEL) / 2))


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its interval.

    Attributes:
        value: The estimate; None where nothing can be estimated.
        lo, hi: Ends of its 95% interval; None without one.
        hits: Items that count; None where the number is no share.
        n: Items.
        clusters: Clusters that the items are of.
    """

    value: float | None
    lo: float | None
    hi: float | None
    hits: int | None
    n: int
    clusters: int


def share(hits: Flags, clusters: Codes) -> Estimate:
    """Return a share with its 95% interval, for items of clusters that are a random sample of all clusters.

    The interval is Wilson's for the effective number of items, which is made smaller once more for the number of clusters that the
    variance is estimated from (Korn & Graubard 1998; Franco et al. 2019). Where all items agree, nothing tells how alike the items of a cluster
    are, and each cluster counts as one item.

    Args:
        hits: bool[n], whether an item counts.
        clusters: int[n], the cluster of each.
    """
    n, groups = len(hits), len(np.unique(clusters))
    if n == 0:
        return Estimate(None, None, None, 0, 0, 0)
    found = int(hits.sum())
    value = found / n
    lo, hi = wilson(value, _effective(hits, clusters, value, groups))
    return Estimate(value, lo, hi, found, n, groups)


def wilson(value: float, n: float) -> tuple[float, float]:
    """Return Wilson's 95% score interval (Wilson 1927) of a share of n items; n need not be whole, and is > 0."""
    middle = (value + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z * np.sqrt(value * (1 - value) / n + Z**2 / (4 * n**2)) / (1 + Z**2 / n)
    return 0.0 if value == 0 else max(0.0, float(middle - half)), 1.0 if value == 1 else min(1.0, float(middle + half))


def _effective(hits: Flags, clusters: Codes, value: float, groups: int) -> float:
    """Return how many independent items tell as much."""
    n = len(hits)
    if value in (0.0, 1.0) or groups == 1:
        return float(groups)
    by_cluster = _sums(hits.astype(np.float64) - value, clusters)
    variance = groups / (groups - 1) * float(by_cluster @ by_cluster) / n**2
    effect = max(1.0, variance / (value * (1 - value) / n))
    return n / effect * (Z / float(stats.t.ppf((1 + LEVEL) / 2, groups - 1))) ** 2


def equal(hits: Flags, groups: Codes, clusters: Codes) -> float | None:
    """Return the p-value of the hypothesis that a share is the same in all groups; None with fewer than two groups.

    The test is a score test whose variances are sums over clusters (Rao & Scott 1981 in spirit: the clustered variance takes the place of
    the binomial one), with an F distribution for few clusters. Groups may share clusters, as replies of two models to one prompt do.

    Args:
        hits: bool[n], whether an item counts.
        groups: int[n], the group of each.
        clusters: int[n], the cluster of each.
    """
    names, group = np.unique(groups, return_inverse=True)
    _, cluster = np.unique(clusters, return_inverse=True)
    many, free = int(cluster.max(initial=-1)) + 1, len(names) - 1
    if free < 1 or many <= free + 1:
        return None
    sizes = np.bincount(group)
    rest = (hits - hits.mean()) / sizes[group]
    influence = np.zeros((many, len(names)))
    np.add.at(influence, (cluster, group), rest)
    found = influence.sum(axis=0)
    contrasts = found[1:] - found[0]
    parts = influence[:, 1:] - influence[:, :1]
    covariance = parts.T @ parts * many / (many - 1)
    if np.linalg.matrix_rank(covariance) < free:
        return 1.0 if np.allclose(contrasts, 0) else None
    statistic = float(contrasts @ np.linalg.solve(covariance, contrasts))
    return float(stats.f.sf(statistic * (many - free) / ((many - 1) * free), free, many - free))


def _sums(values: NDArray[np.float64], clusters: Codes) -> NDArray[np.float64]:
    _, cluster = np.unique(clusters, return_inverse=True)
    sums: NDArray[np.float64] = np.bincount(cluster, weights=values).astype(np.float64)
    return sums
