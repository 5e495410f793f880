"""Shares of clustered items: agreement with scipy where items are independent, and where they are not, simulated coverage."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from analysis.estimates.shares import equal, share, wilson


def test_the_interval_is_wilsons() -> None:
    for hits, n in ((0, 10), (3, 10), (10, 10), (57, 200)):
        there = stats.binomtest(hits, n).proportion_ci(method="wilson")
        assert wilson(hits / n, n) == pytest.approx((there.low, there.high), abs=1e-12)


def test_nothing_is_estimated_from_nothing() -> None:
    found = share(np.array([], dtype=bool), np.array([], dtype=np.int64))
    assert (found.value, found.lo, found.hi, found.n) == (None, None, None, 0)


def test_replies_to_one_prompt_that_all_agree_count_once() -> None:
    clusters = np.repeat(np.arange(20), 5)
    hits = np.repeat(np.arange(20) < 5, 5)
    found = share(hits, clusters)
    assert (found.value, found.hits, found.n, found.clusters) == (0.25, 25, 100, 20)
    lo, hi = wilson(0.25, 20)
    assert found.lo is not None
    assert found.hi is not None
    assert found.lo < lo
    assert hi < found.hi, "and a little wider, for twenty clusters tell little of the variance"
    assert share(np.ones(100, dtype=bool), clusters).lo == pytest.approx(wilson(1.0, 20)[0])


def drawn(rng: np.random.Generator, rate: float, clusters: int, each: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw items of clusters that have rates of their own, with a correlation of 0.3 within."""
    more = (1 - 0.3) / 0.3
    own = rng.beta(rate * more, (1 - rate) * more, clusters)
    return rng.random((clusters, each)).ravel() < np.repeat(own, each), np.repeat(np.arange(clusters), each)


@pytest.mark.parametrize("rate", [0.05, 0.2, 0.5, 0.9])
@pytest.mark.parametrize("clusters", [20, 100])
def test_coverage_of_clustered_shares(rate: float, clusters: int) -> None:
    rng = np.random.default_rng(clusters)
    covered = 0
    for _ in range(1000):
        found = share(*drawn(rng, rate, clusters, 5))
        covered += found.lo is not None and found.hi is not None and found.lo <= rate <= found.hi
    assert 0.925 <= covered / 1000 <= 0.99, "93 to 97%, and what a thousand draws may be off"


def test_equal_shares_are_told_apart_one_time_in_twenty_and_unequal_ones_often() -> None:
    rng = np.random.default_rng(1)
    groups = np.tile(np.repeat([0, 1], [3, 2]), 60)  # both groups have replies to every prompt
    same = [equal(drawn(rng, 0.3, 60, 5)[0], groups, np.repeat(np.arange(60), 5)) for _ in range(1000)]
    assert all(p is not None for p in same)
    assert 0.03 <= np.mean([p < 0.05 for p in same if p is not None]) <= 0.07
    worse = groups.astype(bool) & (rng.random(300) < 0.6)
    found = equal(drawn(rng, 0.3, 60, 5)[0] | worse, groups, np.repeat(np.arange(60), 5))
    assert found is not None
    assert found < 1e-4


def test_one_group_or_one_prompt_has_nothing_to_compare() -> None:
    hits = np.array([True, False, True, True])
    assert equal(hits, np.zeros(4, dtype=np.int64), np.arange(4)) is None
    assert equal(hits, np.array([0, 0, 1, 1]), np.zeros(4, dtype=np.int64)) is None
    assert equal(np.ones(4, dtype=bool), np.array([0, 0, 1, 1]), np.arange(4)) == 1.0
