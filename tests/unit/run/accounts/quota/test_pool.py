"""The state of one account's quota."""

from __future__ import annotations

import itertools

import pytest

from engine.domain.conversation import Turn
from engine.domain.quota import Quota
from engine.ports.chat import ChatRequest, RateLimit, RateLimits
from engine.ports.provider_errors import ThrottledError, UnavailableError
from engine.run.accounts.quota.fair_queue import Ticket
from engine.run.accounts.quota.guess import CUT
from engine.run.accounts.quota.pool import (
    FIRST,
    LEAST_LOOK_S,
    NO_REPLY_TRIES,
    PARK_S,
    PATIENCE_S,
    TRIES,
    Pool,
    estimate,
)
from engine.run.accounts.quota.rate import DAY, NEVER


def put(pool: Pool, number: int = 1, *, tokens: int = 10) -> None:
    for _ in range(number):
        pool.fair_queue.put(Ticket("cell", urgent=False, tokens=tokens))


def sent(pool: Pool, now: float) -> list[Ticket]:
    tickets = []
    while (ticket := pool.next(now)) is not None:
        tickets.append(ticket)
    return tickets


def one(pool: Pool, now: float) -> Ticket:
    ticket = pool.next(now)
    assert ticket is not None
    return ticket


def test_estimates_follow_the_provider() -> None:
    short = ChatRequest("m", (Turn("user", "x" * 41),), max_tokens=50, samples=2)
    assert estimate(short, output_settles=False) == 100
    assert estimate(short, output_settles=True) == 111
    long = ChatRequest("m", (Turn("user", "x" * 4001),), max_tokens=50)
    assert estimate(long, output_settles=False) == 1001


def test_a_few_asks_learn_the_limits_for_all() -> None:
    pool = Pool(Quota())
    put(pool, 100)
    first = sent(pool, 0.0)
    assert len(first) == FIRST
    assert pool.wait(0.0) == NEVER
    rate_limits = RateLimits(RateLimit(60, 55), RateLimit(6000, 5900))
    for ticket in first:
        pool.answered(ticket, rate_limits, 10, 1.0)
    assert len(sent(pool, 1.0)) == 1
    assert 0.9 < pool.wait(1.0) <= 1.1


def test_all_that_an_ask_needs_is_taken_at_once_or_not_at_all() -> None:
    pool = Pool(Quota(requests_per_minute=60, tokens_per_minute=60_000))
    put(pool, 2, tokens=2000)
    one(pool, 0.0)
    for _ in range(5):  # its request would be there after a second, its tokens are not
        assert pool.next(1.5) is None
    assert 0.4 < pool.wait(1.5) <= 0.5
    assert pool.next(2.01) is not None


def test_no_more_are_in_flight_than_allowed() -> None:
    pool = Pool(Quota(requests_per_minute=100_000, max_in_flight=3))
    put(pool, 10)
    flying = []
    for step in range(10):
        flying += sent(pool, step / 10)
    assert len(flying) == pool.in_flight == 3
    assert pool.wait(2.0) == NEVER
    pool.handed_on(flying[0])
    assert len(sent(pool, 2.0)) == 1


def test_a_429_pauses_everything_and_the_ask_goes_first_again() -> None:
    pool = Pool(Quota(requests_per_minute=6000))
    put(pool, 5)
    ticket = one(pool, 0.0)
    assert pool.throttled(ticket, ThrottledError("slow", 3.0), 1.0)
    assert pool.next(3.99) is None
    assert 2.9 < pool.wait(1.0) < 3.5
    assert one(pool, 1.0 + pool.wait(1.0)) is ticket


def test_a_burst_of_429s_is_one_reproach() -> None:
    once, often = (Pool(Quota(requests_per_minute=6000)) for _ in range(2))
    for pool, number in ((once, 1), (often, 20)):
        put(pool, 50)
        flying = [one(pool, step / 10) for step in range(20)]
        for ticket in flying[:number]:
            pool.throttled(ticket, ThrottledError("slow", 1.0), 3.0)
    assert once.requests.per_second(5.0) == often.requests.per_second(5.0)


def test_a_days_limit_parks_the_account() -> None:
    pool = Pool(Quota())
    put(pool, 3)
    pool.throttled(one(pool, 0.0), ThrottledError("tomorrow", scope="day"), 0.0)
    assert pool.wait(1.0) >= PARK_S - 1


def test_growing_too_fast_halves_the_rate() -> None:
    pool = Pool(Quota(requests_per_minute=600))
    put(pool, 3)
    pool.throttled(one(pool, 0.0), ThrottledError("slow down", 1.0, "ramp"), 0.0)
    assert pool.requests.per_second(0.0) == 5


def test_what_is_larger_than_the_limit_is_given_up_and_stops_nobody() -> None:
    pool = Pool(Quota(tokens_per_minute=1000))
    put(pool, 1, tokens=1001)
    put(pool, 1, tokens=10)
    assert not pool.throttled(one(pool, 0.0), ThrottledError("too large"), 0.0)
    assert one(pool, pool.wait(0.0)).tokens == 10


def test_a_failing_server_is_asked_again_later_and_later() -> None:
    pool, now, waits = Pool(Quota()), 0.0, []
    put(pool)
    for turn in range(TRIES + NO_REPLY_TRIES - 1):  # neither of both too often
        ticket, lost = one(pool, now), turn % 2 and turn < 2 * (NO_REPLY_TRIES - 1)
        again = pool.no_reply(ticket, now) if lost else pool.failed(ticket, UnavailableError("busy"), now)
        assert again == (turn < TRIES + NO_REPLY_TRIES - 2)
        if again:
            waits.append(pool.wait(now))
            now += waits[-1]
    assert all(later > 0.9 * sooner for sooner, later in itertools.pairwise(waits))
    assert 1 <= waits[0] <= 1.2
    assert 60 <= waits[-1] <= 70
    assert pool.waiting == pool.in_flight == 0


def test_what_never_gets_a_reply_is_not_sent_as_often_as_what_fails() -> None:
    pool, now, sends = Pool(Quota()), 0.0, 1
    put(pool)
    while pool.no_reply(one(pool, now), now):
        sends += 1
        now += pool.wait(now)
    assert sends == NO_REPLY_TRIES
    assert pool.waiting == pool.in_flight == 0


def test_nothing_is_lost_while_everything_is_refused_for_a_while() -> None:
    pool, now, times = Pool(Quota(requests_per_minute=600)), 0.0, 0
    put(pool, 3)
    while now < 1200:
        if (ticket := pool.next(now)) is None:
            now += pool.wait(now)
        else:
            times += 1
            assert pool.throttled(ticket, ThrottledError("too fast", 0.5), now)
    assert pool.waiting == 3
    assert 1200 / 20 < times < 1200 / 5, "a hint that is wrong again and again is doubted"
    assert pool.requests.per_second(now) == 10
    while pool.waiting and now < 3 * 3600:  # in the end it is given up, and so are the others
        if (ticket := pool.next(now)) is None:
            now += pool.wait(now)
        else:
            pool.throttled(ticket, ThrottledError("too fast"), now)
    assert pool.waiting == pool.in_flight == 0
    assert now < 3600


def test_a_days_limit_may_last_longer_than_any_other_refusal() -> None:
    pool, now = Pool(Quota()), 0.0
    put(pool)
    while now < 2 * DAY:
        assert pool.throttled(one(pool, now), ThrottledError("tomorrow", scope="day"), now)
        now += pool.wait(now)


def test_what_is_larger_than_a_whole_day_is_given_up() -> None:
    pool = Pool(Quota(tokens_per_day=1000))
    put(pool, tokens=1001)
    assert not pool.throttled(one(pool, 0.0), ThrottledError("tomorrow", scope="day"), 0.0)


def test_who_waits_for_tomorrow_does_not_look_at_the_clock_all_day() -> None:
    pool, now, looks = Pool(Quota(tokens_per_minute=60_000, tokens_per_day=10_000)), 0.0, 0
    put(pool, 12, tokens=1000)
    while pool.waiting:
        while (ticket := pool.next(now)) is not None:
            pool.answered(ticket, RateLimits(), 1000, now)
        if pool.waiting:
            now += max(LEAST_LOOK_S, pool.wait(now))
        looks += 1
        assert looks < 1000
    assert DAY <= now < DAY + 600


def test_who_has_nothing_to_send_learns_nothing_from_that() -> None:
    pool, now = Pool(Quota()), 0.0
    put(pool, 100)
    for _ in range(99):  # ten a second
        pool.answered(one(pool, now), RateLimits(), 10, now)
        now += 0.1
    assert pool.throttled(one(pool, now), ThrottledError("too fast", 0.1), now)
    now += pool.wait(now)
    pool.answered(one(pool, now), RateLimits(), 10, now)
    assert pool.next(now) is None
    before = pool.requests.per_second(now)
    put(pool)
    one(pool, now + 3600)
    assert pool.requests.per_second(now + 3600) == pytest.approx(before)


def test_a_429_that_comes_while_nobody_waits_is_no_worse_than_others() -> None:
    pool, now = Pool(Quota()), 0.0
    put(pool, 100)
    for _ in range(99):  # ten a second
        pool.answered(one(pool, now), RateLimits(), 10, now)
        now += 0.1
    pool.throttled(one(pool, now), ThrottledError("too fast", 0.1), now)
    now += pool.wait(now)
    last = one(pool, now)
    assert pool.next(now) is None
    before = pool.requests.per_second(now)
    pool.throttled(last, ThrottledError("too fast", 0.1), now + 100)
    assert pool.next(now + 100) is None
    assert pool.requests.per_second(now + 100) == pytest.approx(CUT * before, rel=0.01)


def test_a_failing_servers_own_advice_is_heeded() -> None:
    pool = Pool(Quota())
    put(pool)
    pool.failed(one(pool, 0.0), UnavailableError("busy", 30.0), 0.0)
    assert 30 <= pool.wait(0.0) <= 33.1


def test_providers_that_settle_give_back_what_was_not_used() -> None:
    settled, charged = (Pool(Quota(tokens_per_minute=6000, output_settles=each)) for each in (True, False))
    for pool in (settled, charged):
        put(pool, 2, tokens=500)
        pool.answered(one(pool, 0.0), RateLimits(), 100, 0.5)
    assert settled.wait(1.01) == 0
    assert charged.wait(1.01) > 3


def test_who_gives_up_waits_nowhere() -> None:
    pool = Pool(Quota())
    put(pool)
    failed, waiting = one(pool, 0.0), Ticket("cell", urgent=False, tokens=1)
    pool.failed(failed, UnavailableError("busy"), 0.0)
    pool.fair_queue.put(waiting)
    for ticket in (failed, waiting):
        pool.given_up(ticket)
    assert pool.waiting == 0
    assert pool.wait(100.0) == NEVER


def test_a_refused_ask_gives_its_tokens_back_but_not_its_request() -> None:
    pool = Pool(Quota())
    pool.requests.learn(RateLimit(60, 60), 0.0)
    pool.tokens.learn(RateLimit(6000, 6000), 0.0)
    put(pool, 2, tokens=3000)
    pool.throttled(one(pool, 0.0), ThrottledError("too fast", 0.1), 0.0)
    assert pool.tokens.room(0.0) == 6000
    assert pool.requests.room(0.0) == 59


def windowed() -> Pool:
    """A pool of 1000 tokens in ten seconds, of which 700 went at 0 and 200 at 7."""
    pool = Pool(Quota())
    pool.tokens.learn(RateLimit(6000, 1000), 0.0)
    pool.tokens.take(700, 0.0)
    pool.tokens.take(200, 7.0)
    return pool


def test_a_smaller_ask_fills_what_the_next_one_leaves_unused() -> None:
    pool = windowed()
    put(pool, 1, tokens=700)
    put(pool, 1, tokens=90)
    wait = pool.tokens.wait(700, 9.5)
    assert wait > 0
    assert one(pool, 9.5).tokens == 90
    assert pool.next(9.5) is None
    assert one(pool, 9.5 + wait).tokens == 700


def test_a_smaller_ask_may_delay_the_next_one_for_a_moment_only() -> None:
    pool = windowed()
    put(pool, 1, tokens=750)
    assert pool.next(9.0) is None
    put(pool, 2, tokens=40)
    assert one(pool, 9.0 + PATIENCE_S / 2).tokens == 40
    assert pool.next(9.0 + PATIENCE_S) is None
    assert one(pool, 9.0 + pool.tokens.wait(750, 9.0)).tokens == 750


@pytest.mark.parametrize("size", [600, 900, 1000])
def test_large_asks_of_many_flows_get_their_turn_while_small_ones_never_end(size: int) -> None:
    pool, now = Pool(Quota()), 1.0
    pool.requests.learn(RateLimit(600, 10), now)  # quanta of a second
    pool.tokens.learn(RateLimit(60_000, 1000), now)
    large = [Ticket(f"{flow}", urgent=False, tokens=size) for flow in range(3)]
    for ticket in large:
        pool.fair_queue.put(ticket)
    while any(ticket.sent_at == 0 for ticket in large):
        while pool.waiting < 60:
            pool.fair_queue.put(Ticket(f"{pool.waiting % 3}", urgent=False, tokens=100))
        if (ticket := pool.next(now)) is not None:
            pool.handed_on(ticket)
        else:
            now += max(LEAST_LOOK_S, pool.wait(now))
        assert now < 15


def test_the_tokens_of_the_day_are_not_lent() -> None:
    pool = Pool(Quota(tokens_per_day=1000))
    pool.day.take(400, 0.0)
    put(pool, 1, tokens=700)
    put(pool, 1, tokens=350)
    assert pool.next(1000.0) is None
