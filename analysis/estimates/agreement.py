"""How far two who label the same items agree: Cohen's kappa and Krippendorff's alpha, with intervals from a bootstrap over clusters."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from analysis.estimates.shares import LEVEL, Codes, Estimate

Counts: TypeAlias = NDArray[np.float64]

REPLICATES = 2000
CHUNK = 20_000_000
"""Most weights that are drawn at a time: memory stays bounded whatever the number of clusters."""


def kappa(first: Codes, second: Codes, clusters: Codes, *, classes: int, ordered: bool) -> Estimate:
    """Return Cohen's kappa (Cohen 1960), weighted by the square of the distance where the classes are ordered (Cohen 1968).

    Args:
        first: int[n], labels of one, 0 up to `classes` - 1.
        second: int[n], labels of the other.
        clusters: int[n], the cluster of each item.
        classes: Number of classes.
        ordered: Whether a label is worse the further it is from the other.
    """
    far = distances(classes, ordered=ordered)

    def value(tables: Counts) -> Counts:
        rows, columns, all_ = tables.sum(axis=2), tables.sum(axis=1), tables.sum(axis=(1, 2))
        expected = np.einsum("ri,rj,ij->r", rows, columns, far)
        return _one_less(np.einsum("rij,ij->r", tables, far) * all_, expected)

    return _estimated(_tables(first, second, clusters, classes), len(first), value)


def alpha(first: Codes, second: Codes, clusters: Codes, *, classes: int, ordered: bool) -> Estimate:
    """Return Krippendorff's alpha of two raters without missing labels (Krippendorff 2004, chapter 11), of nominal or interval data.

    The arguments are those of `kappa`; ordered classes are taken to be equally far apart.
    """
    far = distances(classes, ordered=ordered)

    def value(tables: Counts) -> Counts:
        both = tables + np.swapaxes(tables, 1, 2)  # each pair counts from either side
        sums, all_ = both.sum(axis=2), both.sum(axis=(1, 2))
        expected = np.einsum("ri,rj,ij->r", sums, sums, far)
        return _one_less(np.einsum("rij,ij->r", both, far) * (all_ - 1), expected)

    return _estimated(_tables(first, second, clusters, classes), len(first), value)


def distances(classes: int, *, ordered: bool) -> Counts:
    """Return float[classes, classes]: 0 for equal labels; else 1, or for ordered classes the square of how many lie between."""
    place = np.arange(classes, dtype=float)
    apart = np.abs(place[:, None] - place[None, :])
    return apart**2 if ordered else (apart > 0).astype(float)


def _one_less(observed: Counts, expected: Counts) -> Counts:
    """Return 1 - observed / expected; where nothing could be otherwise, not a number."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(expected > 0, 1 - observed / expected, np.nan)


def _tables(first: Codes, second: Codes, clusters: Codes, classes: int) -> Counts:
    """Return float[clusters, classes, classes]: how often which labels meet in each cluster."""
    _, cluster = np.unique(clusters, return_inverse=True)
    tables = np.zeros((int(cluster.max(initial=-1)) + 1, classes, classes))
    np.add.at(tables, (cluster, first, second), 1)
    return tables


def _estimated(tables: Counts, n: int, value: Callable[[Counts], Counts]) -> Estimate:
    many = len(tables)
    if n == 0 or np.isnan(found := float(value(tables.sum(axis=0, keepdims=True))[0])):
        return Estimate(None, None, None, None, n, many)
    rng, flat, drawn = np.random.default_rng(0), tables.reshape(many, -1), []
    for start in range(0, REPLICATES, step := max(1, CHUNK // many)):
        weights = rng.multinomial(many, np.full(many, 1 / many), size=min(step, REPLICATES - start))
        drawn.append(value((weights @ flat).reshape(-1, *tables.shape[1:])))
    ends = np.nanquantile(np.concatenate(drawn), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    lo, hi = (None, None) if many < 2 or np.isnan(ends).any() else map(float, ends)  # noqa: PLR2004 - one cluster has no spread
    return Estimate(found, lo, hi, None, n, many)
