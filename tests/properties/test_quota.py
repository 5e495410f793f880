"""The quota in virtual time, against the rehearsal server's own arithmetic: nothing is lost, little is wasted, few are refused."""

from __future__ import annotations

import heapq
import math
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.hosted.rehearsal.limits.windows import Window, window
from engine.domain.quota import Quota
from engine.ports.chat import RateLimit, RateLimits
from engine.ports.provider_errors import ThrottledError, UnavailableError
from engine.run.accounts.quota.fair_queue import TURN_TOKENS, FairQueue, Ticket
from engine.run.accounts.quota.pool import NO_REPLY_TRIES, TRIES, Pool
from engine.run.accounts.quota.rate import NEVER, Rate

POLICIES = ("bucket", "sliding", "quantised")
RPM, TPM = 1200, 200_000


def server_window(policy: str, limit: int) -> Window:
    return window(policy, limit, 60.0, burst=10.0, quantum=5.0)


@dataclass
class World:
    """A pool and a server in virtual time; `passed` has the time, the flow and the tokens of what the server let through."""

    pool: Pool
    requests: Window
    tokens: Window
    headers: bool = True
    journey: float = 0.02
    seed: int = 0
    now: float = 0.0
    passed: list[tuple[float, str, int]] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    answered: int = 0
    storm: tuple[float, float] = (math.inf, math.inf)  # all is refused meanwhile
    hints: bool = True  # the server says how long to wait

    def run(self, until: float) -> None:
        draw, events, number = random.Random(self.seed), [], 0  # noqa: S311
        happen: dict[str, Callable[[Ticket], tuple[float, str] | None]]
        happen = {"arrives": self._arrives, "answers": self._answers}
        while self.now < until:
            while (ticket := self.pool.next(self.now)) is not None:
                number += 1
                heapq.heappush(events, (self.now + draw.expovariate(1 / self.journey), number, "arrives", ticket))
            wait, next_event = self.pool.wait(self.now), events[0][0] if events else math.inf
            if wait == NEVER and not events:
                return
            if self.now + wait < next_event:
                self.now += max(wait, 0.0005)
                continue
            self.now, _, what, ticket = heapq.heappop(events)
            if (following := happen[what](ticket)) is not None:
                number += 1
                heapq.heappush(events, (self.now + following[0] + draw.random(), number, following[1], ticket))

    def _arrives(self, ticket: Ticket) -> tuple[float, str] | None:
        storms = self.storm[0] <= self.now < self.storm[1]
        waits = self.requests.wait(self.now, 1), self.tokens.wait(self.now, ticket.tokens), float(storms)
        if max(waits) <= 0:
            self.requests.take(self.now, 1)
            self.tokens.take(self.now, ticket.tokens)
            self.passed.append((self.now, ticket.flow, ticket.tokens))
            return 0.2, "answers"
        self.requests.take(self.now, 1)  # failed requests count
        self.refused.append(self.now)
        assert self.pool.throttled(ticket, ThrottledError("too fast", max(waits) if self.hints else None), self.now)
        return None

    def used(self, begin: float, end: float) -> float:
        """Return what passed in that time / what was allowed."""
        tokens = [tokens for at, _, tokens in self.passed if begin < at <= end]
        return max(len(tokens) / self.requests.limit, sum(tokens) / self.tokens.limit) * 60 / (end - begin)

    def _answers(self, ticket: Ticket) -> None:
        told = (
            RateLimit(each.limit, each.left(self.now), each.reset(self.now)) for each in (self.requests, self.tokens)
        )
        self.pool.answered(ticket, RateLimits(*told) if self.headers else RateLimits(), ticket.tokens, self.now)
        self.answered += 1


def put_backlog(pool: Pool, number: int) -> None:
    draw = random.Random(number)  # noqa: S311
    for index in range(number):
        tokens = max(5, min(800, round(draw.lognormvariate(4.9, 0.8))))
        pool.fair_queue.put(Ticket(f"cell {index % 30}", urgent=False, tokens=tokens))


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("policy", POLICIES)
def test_a_long_backlog_uses_the_quota_and_loses_nothing(policy: str, *, known: bool) -> None:
    quota = Quota(requests_per_minute=RPM, tokens_per_minute=TPM) if known else Quota()
    world = World(Pool(quota), server_window(policy, RPM), server_window(policy, TPM))
    put_backlog(world.pool, 5000)
    world.run(3600)
    assert world.answered == 5000
    assert world.pool.in_flight == world.pool.waiting == 0
    assert len(world.refused) <= 5000 * (0.005 if policy == "bucket" else 0.01)
    assert world.used(world.passed[500][0], world.passed[-250][0]) >= (0.97 if policy == "bucket" else 0.95)


@pytest.mark.parametrize("hints", [True, False])
@pytest.mark.parametrize("policy", POLICIES)
def test_without_any_header_it_finds_the_rate_and_finds_it_again_after_a_storm(policy: str, *, hints: bool) -> None:
    storm, end = (400.0, 430.0), 800.0
    world = World(Pool(Quota()), server_window(policy, RPM), server_window(policy, TPM), headers=False)
    world.storm, world.hints = storm, hints
    put_backlog(world.pool, int(end * RPM / 60))
    world.run(end)
    least = {"bucket": 0.95, "sliding": 0.85 if hints else 0.65, "quantised": 0.85}[policy]
    assert min(world.used(120, storm[0]), world.used(storm[1] + 120, end)) >= least
    assert max(world.used(at, at + 20) for at in range(int(storm[1]), int(storm[1]) + 110, 5)) >= 0.9
    for begin, until in ((120, storm[0]), (storm[1], end)):
        refused, passed = (
            sum(begin < at < until for at in times) for times in (world.refused, [p[0] for p in world.passed])
        )
        assert refused < 0.02 * (refused + passed)
    assert len(world.refused) < 0.02 * len(world.passed)


@pytest.mark.parametrize(("rpm", "tpm", "least"), [(600, 60_000, 0.96), (1200, 120_000, 0.97)])
def test_quanta_of_a_second_are_packed_well(rpm: int, tpm: int, least: float) -> None:
    requests, tokens = (window("quantised", limit, 60.0, burst=10.0, quantum=1.0) for limit in (rpm, tpm))
    world = World(Pool(Quota()), requests, tokens, journey=0.004)
    put_backlog(world.pool, rpm * 2)
    world.run(3600)
    assert world.answered == rpm * 2
    assert len(world.refused) <= 0.01 * world.answered
    assert world.used(world.passed[rpm // 5][0], world.passed[-rpm // 10][0]) >= least


@settings(max_examples=60, deadline=None)
@given(
    rpm=st.integers(5, 600),
    tpm=st.integers(500, 50_000),
    requests=st.lists(st.tuples(st.floats(0, 30), st.floats(0.001, 1)), min_size=1, max_size=120),
)
def test_never_more_than_the_limit_in_any_minute(rpm: int, tpm: int, requests: list[tuple[float, float]]) -> None:
    pool, now, sent = Pool(Quota(requests_per_minute=rpm, tokens_per_minute=tpm)), 0.0, list[tuple[float, int]]()
    for pause, share in requests:  # none is larger than the limit
        now += pause
        pool.fair_queue.put(Ticket("cell", urgent=False, tokens=max(1, int(tpm * share))))
    while pool.waiting:
        while (ticket := pool.next(now)) is not None:
            sent.append((now, ticket.tokens))
            pool.handed_on(ticket)
        now += max(pool.wait(now), 0.001) if pool.waiting else 0.0
    assert len(sent) == len(requests)
    for index, (begin, _) in enumerate(sent):
        within = [tokens for at, tokens in sent[index:] if at < begin + 60]
        assert len(within) <= rpm
        assert sum(within) <= tpm


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 6000), min_size=2, max_size=8, unique=True),
    taken=st.integers(50, 300),
)
def test_flows_get_the_same_tokens_whatever_their_prompts_are(sizes: list[int], taken: int) -> None:
    fair_queue, got = FairQueue(), Counter[str]()
    for size in sizes:
        for _ in range(taken):
            fair_queue.put(Ticket(str(size), urgent=False, tokens=size))
    for _ in range(taken):
        ticket = fair_queue.take()
        got[ticket.flow] += ticket.tokens
    shares = [got[str(size)] for size in sizes]
    assert max(shares) - min(shares) <= 2 * (TURN_TOKENS + max(sizes))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 300), st.booleans()), min_size=5, max_size=60), st.integers(0, 2**16))
def test_no_ask_waits_for_ever_behind_smaller_and_more_urgent_ones(others: list[tuple[int, bool]], seed: int) -> None:
    draw, rate = random.Random(seed), 10_000  # noqa: S311
    pool, now, number = Pool(Quota(tokens_per_minute=rate)), 0.0, 0
    large = Ticket("large", urgent=False, tokens=rate - 1)
    pool.fair_queue.put(large)
    for _ in range(5000):
        while pool.waiting < 20:  # others never stop coming
            size, urgent = others[number % len(others)]
            pool.fair_queue.put(Ticket(f"{draw.randrange(5)}{urgent}", urgent=urgent, tokens=size))
            number += 1
        ticket = pool.next(now)
        if ticket is large:
            return
        if ticket is not None:
            pool.handed_on(ticket)
        else:
            now += max(0.001, pool.wait(now))
    pytest.fail(f"the large request was not sent in {now:.0f} seconds")


FATES: dict[str, Callable[[Pool, Ticket, float], bool | None]] = {
    "answered": lambda pool, ticket, now: pool.answered(ticket, RateLimits(), 1, now),
    "blocked": lambda pool, ticket, _now: pool.handed_on(ticket),
    "too fast": lambda pool, ticket, now: pool.throttled(ticket, ThrottledError(""), now),
    "slow down": lambda pool, ticket, now: pool.throttled(ticket, ThrottledError("", scope="ramp"), now),
    "unavailable": lambda pool, ticket, now: pool.failed(ticket, UnavailableError(""), now),
    "unanswered": lambda pool, ticket, now: pool.no_reply(ticket, now),
    "tomorrow": lambda pool, ticket, now: pool.throttled(ticket, ThrottledError("", 100.0, "day"), now),
}
"""What becomes of a request that was sent; true when it is sent again."""


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_whatever_goes_wrong_each_ask_ends_once_and_waits_are_bounded(data: st.DataObject) -> None:
    number = data.draw(st.integers(1, 15))
    pool, now, ended, flying = Pool(Quota(max_in_flight=4)), 0.0, Counter[int](), list[Ticket]()
    for index in range(number):
        pool.fair_queue.put(Ticket("cell", urgent=False, tokens=10 + index))
    while sum(ended.values()) < number:
        while (sent := pool.next(now)) is not None:
            flying.append(sent)
        if flying:
            ticket = flying.pop(data.draw(st.integers(0, len(flying) - 1)))
            goes_on = FATES[data.draw(st.sampled_from(sorted(FATES)))](pool, ticket, now)
            assert (ticket.failures < TRIES and ticket.no_reply < NO_REPLY_TRIES) or not goes_on
            ended[ticket.tokens] += not goes_on
        else:
            wait = pool.wait(now)
            assert 0 <= wait <= 1000
            now += max(wait, 0.001)
    assert set(ended.values()) == {1}
    assert pool.in_flight == pool.waiting == 0


@given(st.lists(st.tuples(st.floats(0, 100), st.integers(1, 500), st.integers(0, 500)), min_size=1, max_size=50))
def test_what_is_taken_back_leaves_no_trace(sends: list[tuple[float, int, int]]) -> None:
    estimated, exact, now = Rate(1000), Rate(1000), 0.0
    for pause, guess, used in sends:
        now += pause
        estimated.give(estimated.take(guess, now), guess - used, now)
        exact.take(used, now)
    assert math.isclose(estimated.room(now), exact.room(now), abs_tol=1e-6)
    assert math.isclose(estimated.wait(1, now), exact.wait(1, now), abs_tol=1e-6)
