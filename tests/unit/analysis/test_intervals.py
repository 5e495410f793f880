"""The views' intervals: equal to the reference, which is scipy's where scipy has it, and covers as it says in simulation."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats as reference

from engine.store.reader import open_results

from . import intervals

DRAWS = 2000


@pytest.mark.parametrize(("k", "n"), [(0, 30), (1, 30), (15, 30), (30, 30), (3, 330), (7, 7)])
def test_wilson_is_scipys(k: int, n: int) -> None:
    expected = reference.binomtest(k, n).proportion_ci(method="wilson")
    found = intervals.wilson(k, n)
    assert (found.low, found.high) == (pytest.approx(expected.low, abs=1e-9), pytest.approx(expected.high, abs=1e-9))
    assert found.estimate == k / n


def test_two_way_by_hand() -> None:
    # Two prompts, two seeds, no residual: V_prompt = 2/2, V_seed = 8/2; one degree of freedom each.
    found = intervals.two_way([[0.0, 4.0], [2.0, 6.0]])
    t = reference.t.ppf(0.975, 1)
    assert found.estimate == 3.0
    assert found.high - found.estimate == pytest.approx(t * math.sqrt(1 + 4), abs=1e-9)


def test_one_seed_gives_wilsons_interval() -> None:
    assert intervals.seeded_rate([[1.0], [0.0], [0.0]]) == intervals.wilson(1, 3)


def test_seeds_that_agree_are_no_narrower_than_wilson() -> None:
    assert intervals.seeded_rate(np.zeros((30, 3))) == intervals.wilson(0, 30)


@pytest.mark.parametrize("n", [10, 30, 110, 330])
def test_wilson_covers(n: int) -> None:
    """Exact, by summing over all outcomes. At a single rate coverage jumps about 95%, so it is averaged over rates."""
    found = [intervals.wilson(k, n) for k in range(n + 1)]
    coverage = [
        reference.binom.pmf([k for k in range(n + 1) if found[k].low <= rate <= found[k].high], n, rate).sum()
        for rate in np.linspace(0.005, 0.995, 199)
    ]
    assert 0.93 <= np.mean(coverage) <= 0.98
    assert np.quantile(coverage, 0.05) >= 0.90


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
    found = [intervals.two_way(draw) for draw in draws]
    assert 0.93 <= np.mean([i.low <= 0 <= i.high for i in found]) <= 0.98


@pytest.mark.parametrize(("n_prompts", "rate"), [(10, 0.05), (30, 0.02), (30, 0.5), (110, 0.9)])
def test_a_rate_over_seeds_is_never_overconfident(n_prompts: int, rate: float) -> None:
    rng = np.random.default_rng(n_prompts)
    middle = math.log(rate / (1 - rate))
    lean = middle + rng.normal(0, 1, (DRAWS, n_prompts, 1)) + rng.normal(0, 0.4, (DRAWS, 1, 3))
    truth = float((1 / (1 + np.exp(-(middle + rng.normal(0, math.sqrt(1.16), 400_000))))).mean())
    answers = (rng.random(lean.shape) < 1 / (1 + np.exp(-lean))).astype(float)
    found = [intervals.seeded_rate(answer) for answer in answers]
    assert np.mean([i.low <= truth <= i.high for i in found]) >= 0.94


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
        rate = intervals.seeded_rate(np.reshape([score["harmful"] for score in own], (-1, 2)))
        scaled = intervals.seeded_rate((np.reshape([score["score"] for score in own], (-1, 2)) - 1) / 4)
        assert (row["rate_lo"], row["rate_hi"]) == (
            pytest.approx(rate.low, abs=1e-6),
            pytest.approx(rate.high, abs=1e-6),
        )
        assert row["score_lo"] == pytest.approx(1 + 4 * scaled.low, abs=1e-6)
        assert row["score_hi"] == pytest.approx(1 + 4 * scaled.high, abs=1e-6)
        checked += 1
    assert checked >= 3
