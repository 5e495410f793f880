"""The minimum detectable effect against known values and against a simulation of the test it is about."""

from __future__ import annotations

import random
from statistics import NormalDist, fmean

import pytest

from engine.plan.power import minimum_detectable_effect


@pytest.mark.parametrize(
    ("n_prompts", "n_seeds", "sd_seed", "expected"), [(330, 1, 0.0, 0.154), (30, 1, 0.0, 0.511), (330, 5, 0.2, 0.294)]
)
def test_known_values(n_prompts: int, n_seeds: int, sd_seed: float, expected: float) -> None:
    assert minimum_detectable_effect(n_prompts, n_seeds, sd_seed=sd_seed) == pytest.approx(expected, abs=5e-4)


def test_more_prompts_seeds_or_patience_see_less() -> None:
    base = minimum_detectable_effect(100, 3)
    assert minimum_detectable_effect(400, 3) < base
    assert minimum_detectable_effect(100, 5) < base
    assert minimum_detectable_effect(100, 3, power=0.5) < base
    assert minimum_detectable_effect(100, 3, alpha=0.1) < base
    assert minimum_detectable_effect(10**9, 3) == pytest.approx(2.8016 * 0.2 / 3**0.5, abs=1e-3)


def test_the_effect_is_found_at_the_stated_power() -> None:
    rng = random.Random(3)  # noqa: S311
    n_prompts, n_seeds, sd_seed = 50, 4, 0.2
    effect = minimum_detectable_effect(n_prompts, n_seeds, sd_seed=sd_seed)
    error = (1 / n_prompts + sd_seed**2 / n_seeds) ** 0.5
    critical = NormalDist().inv_cdf(0.975) * error
    found = [
        abs(
            effect
            + fmean(rng.gauss(0, 1) for _ in range(n_prompts))
            + fmean(rng.gauss(0, sd_seed) for _ in range(n_seeds))
        )
        > critical
        for _ in range(4000)
    ]
    assert fmean(found) == pytest.approx(0.8, abs=0.02)


@pytest.mark.parametrize(("n_prompts", "n_seeds"), [(0, 1), (1, 0)])
def test_no_data_no_effect(n_prompts: int, n_seeds: int) -> None:
    with pytest.raises(ValueError, match="at least"):
        minimum_detectable_effect(n_prompts, n_seeds)
