"""One limit over time."""

from __future__ import annotations

import pytest

from engine.ports.chat import RateLimit
from engine.run.accounts.quota.rate import DAY, NEVER, Rate


def drained(rate: Rate, amount: float, now: float, until: float) -> tuple[float, int]:
    """Send all that may be sent; returns the time and how often it was."""
    times = 0
    while now < until:
        wait = rate.wait(amount, now)
        now += max(wait, 1e-6)
        if wait <= 0:
            rate.take(amount, now)
            times += 1
    return now, times


def test_sends_are_spread_over_the_minute() -> None:
    rate = Rate(60)
    assert rate.wait(1, 0.0) == 0
    rate.take(1, 0.0)
    assert rate.wait(1, 0.0) == pytest.approx(1.0)
    assert drained(rate, 1, 0.0, 30.5)[1] == 30


def test_after_a_rest_a_few_seconds_worth_go_at_once_but_not_at_first() -> None:
    rate = Rate(60)
    assert drained(rate, 1, 0.0, 0.5)[1] == 1
    assert drained(rate, 1, 30.0, 30.001)[1] == 5  # what four seconds saved up, and the one that is due


def test_without_a_limit_nothing_waits() -> None:
    rate = Rate(None)
    assert not rate.known
    for _ in range(1000):
        assert rate.wait(10**9, 0.0) == 0
        rate.take(10**9, 0.0)
    assert rate.beside(1, 0.0) == NEVER


def test_the_lower_of_what_is_written_and_what_the_server_says_holds() -> None:
    written, silent = Rate(60), Rate(None)
    for rate in (written, silent):
        rate.learn(RateLimit(limit=600, left=599), 0.0)
    assert written.per_second(0.0) == 1
    assert silent.per_second(0.0) == 10
    written.learn(RateLimit(limit=30, left=3), 0.0)
    assert written.per_second(0.0) == 0.5
    written.learn(RateLimit(), 0.0)
    assert written.per_second(0.0) == 0.5


@pytest.mark.parametrize(("left", "seconds"), [(599, 60), (99, 10), (50, 5), (10, 1), (3, 1)])
def test_the_window_is_as_long_as_what_the_server_holds_lasts(left: int, seconds: int) -> None:
    rate = Rate(None)
    rate.learn(RateLimit(limit=600, left=left), 0.0)
    now, sent = 0.0, list[float]()
    while len(sent) < 1300:
        wait = rate.wait(1, now)
        if wait <= 0:
            rate.take(1, now)
            sent.append(now)
        now += max(wait, 1e-4)
        if len(sent) == 1000:
            now += 20  # what was saved up meanwhile may go at once, but not more than fits
    for index, at in enumerate(sent):
        assert sum(other < at + seconds for other in sent[index : index + 700]) <= 10 * seconds
    assert sent[999] - sent[0] <= 1000 / 10 * 1.02


def test_large_amounts_pass_alone() -> None:
    rate = Rate(600)
    rate.learn(RateLimit(limit=600, left=10), 0.0)  # quanta of a second
    rate.take(10, 0.0)
    assert 1.0 <= rate.wait(400, 0.0) < 1.1
    assert rate.wait(400, 1.1) == 0
    assert rate.allows(600)
    assert not rate.allows(601)


def test_what_goes_before_a_large_amount_does_not_delay_it() -> None:
    rate = Rate(6000)
    rate.learn(RateLimit(limit=6000, left=1000), 0.0)  # ten seconds of 100
    rate.take(700, 0.0)
    rate.take(200, 7.0)
    wait = rate.wait(600, 9.6)
    assert 0 < wait < 1
    assert rate.beside(600, 9.6) == 200
    assert rate.room(9.6) == 100
    rate.take(20, 9.6)
    assert rate.wait(600, 9.6) == pytest.approx(wait)


def test_a_reproach_widens_the_slack_for_a_while() -> None:
    calm, warned = Rate(None), Rate(None)
    for rate in (calm, warned):
        rate.learn(RateLimit(limit=600, left=50), 0.0)
    for _ in range(20):
        warned.on_rate_limited(0.0)
    assert drained(warned, 1, 0.0, 30.0)[1] < drained(calm, 1, 0.0, 30.0)[1]
    assert drained(warned, 1, 30.0, 60.0)[1] > 270  # but never by much
    assert drained(warned, 1, 1000.0, 1060.0)[1] == pytest.approx(drained(calm, 1, 1000.0, 1060.0)[1], abs=1)


def test_where_nobody_tells_the_limit_what_was_sent_of_late_is_taken_for_it() -> None:
    rate = Rate(None, least=6)
    for tenth in range(100):  # ten a second
        rate.take(1, tenth / 10)
    assert not rate.known
    rate.on_rate_limited(10.0)
    assert rate.known
    assert rate.allows(10**9)
    assert 8 < rate.per_second(10.0) < 9
    assert drained(rate, 1, 10.0, 20.0)[1] == pytest.approx(95, abs=5)
    assert rate.per_second(10_000.0) <= 20, "nothing was sent meanwhile"
    rate.learn(RateLimit(limit=60, left=9), 10_000.0)
    assert rate.per_second(10_000.0) == 1


def test_a_server_that_refuses_everything_tells_nothing_of_the_limit() -> None:
    silent, written, told = Rate(None), Rate(600), Rate(None)
    told.learn(RateLimit(limit=600, left=50), 0.0)
    for rate in (silent, written, told):
        for second in range(30):
            rate.take(1, float(second))
            rate.on_rate_limited(float(second), answered=False)
    assert not silent.known
    assert written.per_second(30.0) == told.per_second(30.0) == 10


def test_who_is_to_grow_slowly_does_so_whatever_else_it_is_told() -> None:
    rate = Rate(600)
    rate.halve(0.0)
    rate.on_rate_limited(1.0)
    assert rate.per_second(300.0) < 6


def test_growing_too_fast_halves_the_rate_which_grows_back() -> None:
    rate = Rate(600)
    rate.halve(0.0)
    assert rate.per_second(0.0) == 5
    assert rate.per_second(900.0) == 7.5
    assert rate.per_second(10_000.0) == 10
    for _ in range(50):
        rate.halve(0.0)
    assert rate.per_second(0.0) >= 1


def test_a_day_is_counted_and_not_spread() -> None:
    rate = Rate(1000, DAY)
    assert drained(rate, 100, 0.0, 0.5)[1] == 10
    assert DAY - 1 < rate.wait(100, 1.0) < DAY + 200
    assert rate.wait(100, DAY + 200) == 0


def test_what_was_not_used_is_there_again() -> None:
    rate = Rate(6000)
    grain = rate.take(300, 0.0)
    assert rate.wait(1, 0.0) == pytest.approx(3.0)
    rate.give(grain, 200, 0.0)
    assert rate.wait(1, 0.0) == pytest.approx(1.0)
    assert rate.room(0.0) == 5900
