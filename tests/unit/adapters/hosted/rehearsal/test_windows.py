"""Each way of holding a limit, as arithmetic: what passes, what a wait is worth, what settling gives back."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.hosted.rehearsal.limits.windows import Sliding, Window, window

LIMITS = st.integers(10, 5_000)
SHARES = st.floats(0.2, 1)
"""Shares of what passes at once; smaller ones would be refilled before they are settled."""

STEPS = st.lists(st.tuples(st.floats(0, 20), st.floats(0.001, 1.0)), min_size=1, max_size=60)
"""Seconds since the last request, and its size as a share of what passes at once."""


def kinds(limit: int) -> dict[str, tuple[Window, float]]:
    """Windows, and what each holds at once."""
    holds = {"bucket": max(1.0, limit / 6), "sliding": limit, "quantised": max(1.0, limit / 10)}
    return {kind: (window(kind, limit, 60, burst=10, quantum=6), held) for kind, held in holds.items()}


def walked(window: Any, at_once: float, steps: Any) -> list[tuple[float, float]]:
    """What passed, and when."""
    now, passed = 0.0, []
    for gap, share in steps:
        now, amount = now + gap, share * at_once
        if window.wait(now, amount) == 0:
            window.take(now, amount)
            passed.append((now, amount))
    return passed


@given(LIMITS, STEPS)
def test_a_bucket_lets_pass_its_burst_and_what_it_was_refilled(limit: int, steps: Any) -> None:
    bucket, holds = kinds(limit)["bucket"]
    passed = walked(bucket, holds, steps)
    for first in range(len(passed)):
        for last in range(first, len(passed)):
            taken = sum(amount for _, amount in passed[first : last + 1])
            assert taken <= holds + (passed[last][0] - passed[first][0]) * limit / 60 + 1e-6


@given(LIMITS, STEPS)
def test_no_sixty_seconds_of_a_sliding_window_hold_more_than_its_limit(limit: int, steps: Any) -> None:
    passed = walked(Sliding(limit, 60), limit, steps)
    for end, _ in passed:
        assert sum(amount for at, amount in passed if end - 60 < at <= end) <= limit + 1e-6


@given(LIMITS, STEPS)
def test_no_quantum_holds_more_than_its_share(limit: int, steps: Any) -> None:
    quanta: dict[int, float] = {}
    for at, amount in walked(*kinds(limit)["quantised"], steps):
        quanta[math.floor(at / 6 + 1e-9)] = quanta.get(math.floor(at / 6 + 1e-9), 0) + amount
    assert max(quanta.values()) <= limit / 10 + 1e-6


@given(st.sampled_from(["bucket", "sliding", "quantised"]), LIMITS, STEPS)
def test_a_wait_is_long_enough_and_no_longer_than_needed(kind: str, limit: int, steps: Any) -> None:
    window, at_once = kinds(limit)[kind]
    now = 0.0
    for gap, share in steps:
        now, amount = now + gap, share * at_once
        wait = window.wait(now, amount)
        if wait > 1e-3:
            assert window.wait(now + wait * 0.99, amount) > 0
        now += wait + 1e-6
        assert window.wait(now, amount) == 0
        window.take(now, amount)
    assert 0 <= window.left(now) <= at_once
    now += window.reset(now) + 1e-6
    assert window.left(now) == math.floor(at_once + 1e-9)


@given(st.sampled_from(["bucket", "sliding", "quantised"]), LIMITS, SHARES, SHARES)
def test_settling_leaves_what_taking_the_right_amount_would_have(
    kind: str, limit: int, guess: float, truth: float
) -> None:
    window, at_once = kinds(limit)[kind]
    right, _ = kinds(limit)[kind]
    window.settle(1.5, window.take(1.0, guess * at_once), truth * at_once)
    right.take(1.0, truth * at_once)
    assert abs(window.left(2.0) - right.left(2.0)) <= 1


@pytest.mark.parametrize("kind", ["bucket", "quantised"])
def test_what_is_larger_than_a_burst_passes_when_full_and_is_paid_back(kind: str) -> None:
    window, at_once = kinds(600)[kind]
    amount = at_once * 3
    assert window.wait(0, amount) == 0
    window.take(0, amount)
    assert window.left(0) == 0
    assert window.wait(0, 1) == pytest.approx({"bucket": (amount - at_once + 1) / 10, "quantised": 18}[kind])


@pytest.mark.parametrize("kind", ["bucket", "sliding", "quantised"])
def test_what_is_larger_than_the_limit_never_passes(kind: str) -> None:
    window, _ = kinds(600)[kind]
    assert math.isinf(window.wait(0, 601))


def test_hammering_shuts_a_sliding_window_and_keeps_the_others_at_nothing() -> None:
    for kind, expected in {"bucket": 0.1, "quantised": 6.0, "sliding": 59.9}.items():
        window, at_once = kinds(600)[kind]
        window.take(0, at_once)
        for refused in range(1, 1200):
            window.fail(refused * 1e-4)
        assert window.wait(0.12, 1) == pytest.approx(expected, abs=0.13), kind
