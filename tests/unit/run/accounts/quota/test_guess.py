"""A limit that nobody tells."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.run.accounts.quota.guess import (
    CUT,
    LEAST_CLIMB_S,
    LEAST_LEFT,
    LEAST_SHARE,
    MEASURED_S,
    PROBE,
    SUSPECT,
    Guess,
)


def sent(guess: Guess, begin: float, end: float, rate: float) -> None:
    """Send so much a second, ten times a second."""
    for step in range(round((end - begin) * 10)):
        guess.sent(rate / 10, begin + step / 10)


def measured() -> tuple[Guess, float]:
    """Return a guess that was measured at ten a second, and when that was."""
    guess = Guess(100.0, 0.1, 0.0)
    sent(guess, 0.0, MEASURED_S, 10.0)
    guess.on_rate_limited(MEASURED_S, answered=True)
    return guess, MEASURED_S


def test_the_rate_climbs_back_lingers_and_probes_beyond() -> None:
    guess = Guess(10.0, 1.0, 0.0)
    rates = [guess.per_second(second) for second in range(3 * round(LEAST_CLIMB_S))]
    assert rates == sorted(rates)
    assert rates[0] == pytest.approx(10 * (1 - PROBE))
    assert guess.per_second(LEAST_CLIMB_S) == 10
    assert sum(9.9 < rate < 10.1 for rate in rates) > LEAST_CLIMB_S / 2
    assert guess.per_second(2 * LEAST_CLIMB_S) == pytest.approx(10 * (1 + PROBE))


def test_what_passed_between_two_reproaches_is_the_limit() -> None:
    guess = Guess(100.0, 1.0, 0.0)
    for second in range(round(MEASURED_S)):
        sent(guess, second, second + 1, 12.0)
        guess.settled(2.0)  # was refused
    guess.on_rate_limited(MEASURED_S, answered=True)
    assert guess.aim == pytest.approx(10, rel=0.01)
    assert guess.per_second(MEASURED_S) == pytest.approx(10 * (1 - PROBE), rel=0.01)


def test_far_beyond_the_last_measurement_only_that_part_is_measured() -> None:
    guess = Guess(10.0, 1.0, 0.0)
    sent(guess, 0.0, LEAST_CLIMB_S, 10.0)
    sent(guess, LEAST_CLIMB_S, 3 * LEAST_CLIMB_S, 15.0)
    guess.on_rate_limited(3 * LEAST_CLIMB_S, answered=True)
    assert guess.aim == pytest.approx(15, rel=0.02)


def test_a_storm_cuts_the_rate_and_takes_next_to_nothing_from_what_was_measured() -> None:
    guess, now = measured()
    sent(guess, now, now + 40, 10.0)
    guess.on_rate_limited(now + 40, answered=True)
    for second in range(round(now) + 41, round(now) + 101):
        guess.sent(1.0, float(second))
        guess.settled(1.0)
        guess.on_rate_limited(float(second), answered=False)
        assert LEAST_SHARE * 9 <= guess.per_second(second) <= CUT * 10
    assert guess.aim == pytest.approx(10 * SUSPECT, rel=0.01)
    back = now + 100 + LEAST_CLIMB_S
    assert guess.per_second(back) == pytest.approx(guess.aim)
    sent(guess, back - LEAST_CLIMB_S / 2, back + 40, 10.0)
    guess.on_rate_limited(back + 40, answered=True)
    assert guess.aim == pytest.approx(10, rel=0.02), "what passed during the storm is not measured"


def test_what_was_measured_is_doubted_when_storms_do_not_end() -> None:
    guess, now = measured()
    for storm in range(30):
        for step in range(5):
            guess.on_rate_limited(now + 10 * storm + step, answered=step == 0)
    assert guess.aim < 1


def test_fewer_asks_are_probed_for_more_slowly() -> None:
    many, few = Guess(10.0, 0.01, 0.0), Guess(10.0, 0.01, 0.0)
    for guess, rate in ((many, 10.0), (few, 0.1)):
        for step in range(round(100 * rate)):
            guess.sent(1.0, step / rate)
        guess.on_rate_limited(100.0, answered=True)
    assert many.per_second(100 + LEAST_CLIMB_S) == pytest.approx(many.aim)
    assert few.per_second(100 + 10 * LEAST_CLIMB_S) < few.aim


@given(
    st.floats(0.1, 1e6),
    st.lists(st.tuples(st.floats(0, 1000), st.floats(0, 1e6), st.booleans()), max_size=60),
)
def test_whatever_happens_the_rate_stays_above_its_floor_and_measurements_fall_slowly(
    rate: float, refusals: list[tuple[float, float, bool]]
) -> None:
    least, now, guess, rough = 0.05, 0.0, Guess(rate, 0.05, 0.0), True
    for seconds, amount, answered in refusals:
        guess.sent(amount, now)
        guess.rested(seconds / 10)
        now += seconds
        before = guess.aim
        guess.on_rate_limited(now, answered=answered)
        assert guess.per_second(now) >= max(least, LEAST_SHARE * guess.aim * 0.99)
        assert rough or guess.aim >= LEAST_LEFT * before * 0.99
        rough = rough and guess.aim == before
