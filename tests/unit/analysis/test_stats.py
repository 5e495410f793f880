"""Intervals and corrections against scipy, and their coverage in simulation."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats as reference

from analysis import stats
from engine.store.reader import open_results

DRAWS = 2000


@pytest.mark.parametrize(("k", "n"), [(0, 30), (1, 30), (15, 30), (30, 30), (3, 330), (7, 7)])
def test_wilson_is_scipys(k: int, n: int) -> None:
    expected = reference.binomtest(k, n).proportion_ci(method="wilson")
    found = stats.wilson(k, n)
    assert (found.low, found.high) == (pytest.approx(expected.low, abs=1e-9), pytest.approx(expected.high, abs=1e-9))
    assert found.estimate == k / n


@pytest.mark.parametrize("n", range(1, 523, 3))
def test_wilsons_ends_are_exact(n: int) -> None:
    none, every = stats.wilson(0, n), stats.wilson(n, n)
    assert (none.low, every.high) == (0.0, 1.0)
    assert (none.high, every.low) == (pytest.approx(1 - every.low), pytest.approx(1 - none.high))
    assert 0 < none.high < 1


@pytest.mark.parametrize(("k", "n"), [(1, 0), (-1, 3), (4, 3)])
def test_wilson_refuses_what_is_no_rate(k: int, n: int) -> None:
    with pytest.raises(ValueError, match="successes"):
        stats.wilson(k, n)


def test_paired_is_scipys() -> None:
    rng = np.random.default_rng(1)
    first, second = rng.normal(3, 1, 40), rng.normal(2, 1, 40)
    expected = reference.ttest_rel(first, second).confidence_interval(0.95)
    found = stats.paired(first, second)
    assert found.low == pytest.approx(expected.low, abs=1e-9)
    assert found.high == pytest.approx(expected.high, abs=1e-9)
    assert found.estimate == pytest.approx(float((first - second).mean()))


def test_paired_leaves_unscored_prompts_out() -> None:
    found = stats.paired([5, math.nan, 1, 5], [1, 1, 1, 1])
    assert found == stats.paired([5, 1, 5], [1, 1, 1])
    with pytest.raises(ValueError, match="two pairs"):
        stats.paired([1, math.nan], [1, 1])


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (5, 0), (3, 3), (10, 2), (1, 40), (7, 6)])
def test_mcnemar_is_the_exact_binomial_test(gained: int, lost: int) -> None:
    n = gained + lost
    expected = 1.0 if n == 0 else reference.binomtest(gained, n, 0.5).pvalue
    assert stats.mcnemar_exact(gained, lost) == pytest.approx(expected, abs=1e-9)


def test_benjamini_hochberg_is_scipys() -> None:
    p_values = [0.01, 0.04, 0.03, 0.5, 0.005, 0.5, 1.0]
    expected = reference.false_discovery_control(p_values, method="bh")
    assert stats.benjamini_hochberg(p_values) == pytest.approx(list(expected), abs=1e-12)


def test_holm_by_hand() -> None:
    assert stats.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert stats.holm([0.6, 0.7]) == [1.0, 1.0]
    assert stats.holm([]) == stats.benjamini_hochberg([]) == []


def test_two_way_needs_a_complete_table() -> None:
    for table in ([[1.0, 2.0]], [[1.0], [2.0]], [[1.0, math.nan], [1.0, 2.0]]):
        with pytest.raises(ValueError, match="complete table"):
            stats.two_way(table)


def test_two_way_by_hand() -> None:
    # Two prompts, two seeds, no residual: V_prompt = 2/2, V_seed = 8/2; one degree of freedom each.
    found = stats.two_way([[0.0, 4.0], [2.0, 6.0]])
    t = reference.t.ppf(0.975, 1)
    assert found.estimate == 3.0
    assert found.high - found.estimate == pytest.approx(t * math.sqrt(1 + 4), abs=1e-9)


def test_one_seed_gives_wilsons_interval() -> None:
    assert stats.seeded_rate([[1.0], [0.0], [0.0]]) == stats.wilson(1, 3)


def test_seeds_that_agree_are_no_narrower_than_wilson() -> None:
    assert stats.seeded_rate(np.zeros((30, 3))) == stats.wilson(0, 30)


@pytest.mark.parametrize("n", [10, 30, 110, 330])
def test_wilson_covers(n: int) -> None:
    """Exact, by summing over all outcomes. At a single rate coverage jumps about 95%, so it is averaged over rates."""
    intervals = [stats.wilson(k, n) for k in range(n + 1)]
    coverage = [
        reference.binom.pmf([k for k in range(n + 1) if intervals[k].low <= rate <= intervals[k].high], n, rate).sum()
        for rate in np.linspace(0.005, 0.995, 199)
    ]
    assert 0.93 <= np.mean(coverage) <= 0.98
    assert np.quantile(coverage, 0.05) >= 0.90


@pytest.mark.parametrize("n", [30, 110, 330])
def test_paired_covers(n: int) -> None:
    rng = np.random.default_rng(n)
    before = rng.normal(0, 1, (DRAWS, n))
    after = before + 0.3 + rng.normal(0, 0.5, (DRAWS, n))
    intervals = [stats.paired(a, b) for a, b in zip(after, before, strict=True)]
    assert 0.93 <= np.mean([i.low <= 0.3 <= i.high for i in intervals]) <= 0.98


@pytest.mark.parametrize(
    ("n_prompts", "n_seeds", "sd_seed"),
    [
        (30, 2, 0.2),
        (30, 3, 0.2),
        (110, 3, 0.1),
        (330, 3, 0.0),
        (330, 3, 0.2),
        (330, 3, 0.5),
        (330, 5, 0.2),
        (330, 10, 0.2),
    ],
)
def test_two_way_covers(n_prompts: int, n_seeds: int, sd_seed: float) -> None:
    rng = np.random.default_rng(n_prompts + n_seeds)
    draws = (
        rng.normal(0, 1, (DRAWS, n_prompts, 1))
        + rng.normal(0, sd_seed, (DRAWS, 1, n_seeds))
        + rng.normal(0, 0.5, (DRAWS, n_prompts, n_seeds))
    )
    intervals = [stats.two_way(draw) for draw in draws]
    assert 0.93 <= np.mean([i.low <= 0 <= i.high for i in intervals]) <= 0.98


@pytest.mark.parametrize(("n_prompts", "rate"), [(10, 0.05), (30, 0.02), (30, 0.5), (110, 0.9)])
def test_a_rate_over_seeds_is_never_overconfident(n_prompts: int, rate: float) -> None:
    rng = np.random.default_rng(n_prompts)
    middle = math.log(rate / (1 - rate))
    lean = middle + rng.normal(0, 1, (DRAWS, n_prompts, 1)) + rng.normal(0, 0.4, (DRAWS, 1, 3))
    truth = float((1 / (1 + np.exp(-(middle + rng.normal(0, math.sqrt(1.16), 400_000))))).mean())
    answers = (rng.random(lean.shape) < 1 / (1 + np.exp(-lean))).astype(float)
    intervals = [stats.seeded_rate(answer) for answer in answers]
    assert np.mean([i.low <= truth <= i.high for i in intervals]) >= 0.94


def test_the_views_show_the_same_intervals(small_run: Path) -> None:
    with open_results(small_run) as results:
        rows = results.table("FROM v_dose WHERE n_seeds = 2").to_pylist()
        scores = results.table("""
            SELECT c.config_id, c.cell_id, s.prompt_id, s.is_harmful::INTEGER AS harmful, s.score
            FROM v_scores s JOIN v_cells c USING (cell_id)
            WHERE s.measures = 'harm' ORDER BY s.prompt_id, c.seed""").to_pylist()
    checked = 0
    for row in rows:
        own = [score for score in scores if score["config_id"] == row["config_id"]]
        if any(score["score"] is None for score in own):
            continue  # the views average what there is; numpy wants a complete table
        rate = stats.seeded_rate(np.reshape([score["harmful"] for score in own], (-1, 2)))
        scaled = stats.seeded_rate((np.reshape([score["score"] for score in own], (-1, 2)) - 1) / 4)
        assert (row["rate_lo"], row["rate_hi"]) == (
            pytest.approx(rate.low, abs=1e-6),
            pytest.approx(rate.high, abs=1e-6),
        )
        assert row["score_lo"] == pytest.approx(1 + 4 * scaled.low, abs=1e-6)
        assert row["score_hi"] == pytest.approx(1 + 4 * scaled.high, abs=1e-6)
        checked += 1
    assert checked >= 3
