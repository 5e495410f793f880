"""Kappa against its definition, pair by pair, and alpha against the worked example of Krippendorff's."""

from __future__ import annotations

import numpy as np
import pytest

from analysis.estimates.agreement import alpha, kappa

RNG = np.random.default_rng(3)
FIRST = RNG.integers(0, 4, 300)
SECOND = np.where(RNG.random(300) < 0.7, FIRST, RNG.integers(0, 4, 300))


@pytest.mark.parametrize("ordered", [False, True])
def test_kappa_is_what_is_seen_beside_what_chance_would_give(*, ordered: bool) -> None:
    def apart(one: int, other: int) -> float:
        return float((one - other) ** 2 if ordered else one != other)

    found = kappa(FIRST, SECOND, np.arange(300), classes=4, ordered=ordered)
    seen = np.mean([apart(one, other) for one, other in zip(FIRST, SECOND, strict=True)])
    chance = np.mean([apart(one, other) for one in FIRST for other in SECOND])
    assert found.value == pytest.approx(1 - seen / chance, abs=1e-12)
    assert found.lo is not None
    assert found.hi is not None
    assert found.value is not None
    assert found.lo < found.value < found.hi


def test_alpha_is_that_of_the_textbook() -> None:
    """Krippendorff 2011, `Computing Krippendorff's alpha-reliability`, example A: ten units of two observers, binary data."""
    first = np.array([0, 1, 0, 0, 0, 0, 0, 0, 1, 0])
    second = np.array([1, 1, 1, 0, 0, 1, 0, 0, 0, 0])
    assert alpha(first, second, np.arange(10), classes=2, ordered=False).value == pytest.approx(0.095, abs=5e-4)


def test_replies_to_one_prompt_widen_the_interval_and_nothing_is_said_of_one_class() -> None:
    alone = kappa(FIRST, SECOND, np.arange(300), classes=4, ordered=False)
    twice = kappa(np.tile(FIRST, 4), np.tile(SECOND, 4), np.tile(np.arange(300), 4), classes=4, ordered=False)
    assert twice.value == pytest.approx(alone.value)
    assert (twice.lo, twice.hi) == pytest.approx((alone.lo, alone.hi), abs=0.01)
    same = np.zeros(10, dtype=np.int64)
    assert kappa(same, same, np.arange(10), classes=2, ordered=False).value is None
    assert alpha(same, same, np.arange(10), classes=2, ordered=False).value is None
