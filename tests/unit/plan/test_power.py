"""The minimum detectable effect against known values and against a simulation of the test it is about."""

from __future__ import annotations

import random
from statistics import NormalDist, fmean

import pytest

from engine.plan.power import SD_SEED, minimum_detectable_effect


def test_more_prompts_and_seeds_see_less() -> None:
    assert minimum_detectable_effect(330, 5) == pytest.approx(0.294, abs=5e-4)
    assert minimum_detectable_effect(330, 10**9) == pytest.approx(0.154, abs=5e-4)
    assert minimum_detectable_effect(30, 10**9) == pytest.approx(0.511, abs=5e-4)
    assert minimum_detectable_effect(10**9, 3) == pytest.approx(2.8016 * 0.2 / 3**0.5, abs=1e-3)


def test_the_effect_is_found_at_the_stated_power() -> None:
    rng = random.Random(3)  # noqa: S311
    n_prompts, n_seeds, sd_seed = 50, 4, SD_SEED
    effect = minimum_detectable_effect(n_prompts, n_seeds)
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
