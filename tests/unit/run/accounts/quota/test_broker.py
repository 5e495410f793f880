"""The owner of an account's quota, in a real event loop whose time is virtual."""

from __future__ import annotations

import asyncio
import selectors
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field, replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.hosted.rehearsal.limits.windows import Bucket
from engine.domain.conversation import Turn
from engine.domain.cost import Usage
from engine.domain.quota import Quota
from engine.ports.chat import ChatRequest, Choice, Completion, FinishReason, RateLimit, RateLimits
from engine.ports.provider_errors import (
    BlockedError,
    DeniedError,
    ExhaustedError,
    NoReplyError,
    ProviderError,
    RejectedError,
    ThrottledError,
    UnavailableError,
)
from engine.run.accounts.quota.broker import Broker
from engine.run.accounts.quota.pool import NO_REPLY_TRIES, TRIES, prompt_estimate

NO_LIMITS = RateLimits()


class Hurried(selectors.SelectSelector):
    """Lets time pass at once instead of waiting for it."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None and not self.get_map():
            raise RuntimeError("everybody waits for ever")
        self.now += max(0.0, timeout or 0.0)
        return super().select(0)


def run(main: Callable[[Callable[[], float]], Coroutine[None, None, None]]) -> float:
    """Run a coroutine in virtual time, and return how long it took."""
    selector = Hurried()
    loop = asyncio.SelectorEventLoop(selector)
    loop.time = lambda: selector.now
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(asyncio.wait_for(main(loop.time), 10**7))
    return selector.now


def asked(number: int = 0, model: str = "standin-echo", tokens: int = 50) -> ChatRequest:
    return ChatRequest(model, (Turn("user", f"What is in vault {number}?"),), tokens)


def completion(rate_limits: RateLimits = NO_LIMITS) -> Completion:
    return Completion((Choice("seeds", FinishReason.STOP),), 10, 0, 5, rate_limits)


@dataclass
class Server:
    """Answers by script, else after a second; keeps what it was asked."""

    script: list[ProviderError | None] = field(default_factory=list)
    requests: list[ChatRequest] = field(default_factory=list)
    latency: float = 1.0

    async def complete(self, request: ChatRequest) -> Completion:
        self.requests.append(request)
        error = self.script.pop(0) if self.script else None
        await asyncio.sleep(self.latency)
        if error is not None:
            raise error
        return completion()


class Strict:
    """A server with a quota, faults and lost replies, which says in its headers what is left."""

    def __init__(self, clock: Callable[[], float], rpm: int, tpm: int, faults: float) -> None:
        self.clock, self.faults, self.draw = clock, faults, Random(1)  # noqa: S311
        self.requests, self.tokens = Bucket(rpm, 60.0, 10.0), Bucket(tpm, 60.0, 10.0)
        self.done: list[float] = []
        self.throttled = self.failed = 0

    async def complete(self, request: ChatRequest) -> Completion:
        await asyncio.sleep(self.draw.uniform(0.001, 0.03))
        wait = max(self.requests.wait(self.clock(), 1), self.tokens.wait(self.clock(), request.max_tokens))
        self.requests.take(self.clock(), 1)
        if wait > 0:
            self.throttled += 1
            raise ThrottledError("too fast", wait)
        self.tokens.take(self.clock(), request.max_tokens)
        await asyncio.sleep(self.draw.uniform(0.1, 3))
        if self.draw.random() < self.faults:
            self.failed += 1
            raise self.draw.choice([UnavailableError("busy", 2.0), UnavailableError("busy"), NoReplyError("gone")])
        self.done.append(self.clock())
        limits = (RateLimit(each.limit, each.left(self.clock())) for each in (self.requests, self.tokens))
        return completion(RateLimits(*limits))


@pytest.mark.parametrize("faults", [0.0, 0.2])
def test_nothing_is_lost_and_the_quota_is_used(faults: float) -> None:
    async def main(clock: Callable[[], float]) -> None:
        server = Strict(clock, 600, 60_000, faults)
        broker = Broker(server, Quota(), clock=clock)
        sizes = Random(0)  # noqa: S311
        work = [asked(number, tokens=sizes.randint(5, 180)) for number in range(1000)]
        for flow in range(20):
            broker.expect(str(flow), 50)
        answers = await asyncio.gather(
            *(broker.complete(request, flow=str(n // 50), urgent=n % 2 == 0) for n, request in enumerate(work))
        )
        assert all(answer.choices for answer in answers)
        assert len(server.done) == 1000
        assert server.throttled <= 10
        assert broker.waiting == broker.in_flight == 0
        if faults:
            assert server.failed > 100
        else:
            assert clock() < 1000 / (600 / 60) / 0.95 + 3

    run(main)


def test_refusals_are_handed_on_at_once_and_failures_after_some_tries() -> None:
    async def main(clock: Callable[[], float]) -> None:
        for error in (BlockedError("no"), RejectedError("no"), DeniedError("no"), ValueError("a bug")):
            server = Server([error])
            broker = Broker(server, Quota(), clock=clock)
            with pytest.raises(type(error)):
                await broker.complete(asked(), flow="cell")
            assert len(server.requests) == 1
            assert (await broker.complete(asked(), flow="cell")).choices
        for tries, failure in ((TRIES, UnavailableError), (NO_REPLY_TRIES, NoReplyError)):
            server = Server([failure("gone") for _ in range(tries)])
            broker = Broker(server, Quota(), clock=clock)
            with pytest.raises(failure):
                await broker.complete(asked(), flow="cell")
            assert (len(server.requests), broker.in_flight) == (tries, 0)

    run(main)


def test_an_account_without_money_stops_altogether() -> None:
    async def main(clock: Callable[[], float]) -> None:
        server = Server([None, ExhaustedError("no money left")], latency=0.5)
        broker = Broker(server, Quota(requests_per_minute=60), clock=clock)
        requests = [broker.complete(asked(number), flow="cell") for number in range(10)]
        results = await asyncio.gather(*requests, return_exceptions=True)
        assert [type(result).__name__ for result in results] == ["Completion"] + ["ExhaustedError"] * 9
        assert len(server.requests) == 2
        with pytest.raises(ExhaustedError, match="no money left"):
            await broker.complete(asked(), flow="cell")

    run(main)


ENDS: list[ProviderError | None] = [
    None,
    BlockedError("no"),
    RejectedError("no"),
    DeniedError("no"),
    ExhaustedError("no"),
    NoReplyError("gone"),
]
"""What a last send may come to."""


@given(
    st.lists(st.sampled_from(["possibly_billed", "unavailable", "too fast"]), max_size=TRIES - 1),
    st.sampled_from(ENDS),
    st.integers(1, 3),
)
def test_what_may_be_billed_for_sends_without_a_reply_is_told(
    before: list[str], end: ProviderError | None, samples: int
) -> None:
    made = {
        "possibly_billed": NoReplyError("gone"),
        "unavailable": UnavailableError("busy"),
        "too fast": ThrottledError("slow", 1.0),
    }
    before = [
        what
        for n, what in enumerate(before)
        if what != "possibly_billed" or before[:n].count(what) < NO_REPLY_TRIES - 1
    ]
    last = (
        [NoReplyError("gone")] * (NO_REPLY_TRIES - before.count("possibly_billed"))
        if isinstance(end, NoReplyError)
        else [end]
    )
    request = replace(asked(), samples=samples)

    async def main(clock: Callable[[], float]) -> None:
        server = Server([*(made[what] for what in before), *(end and type(end)(*end.args) for end in last)])
        broker = Broker(server, Quota(), clock=clock)
        times = before.count("possibly_billed")
        if end is None:
            answer = await broker.complete(request, flow="cell")
            assert answer.possibly_billed == possibly_billed(times, answer.prompt_tokens, request)
            assert answer.usage - answer.possibly_billed == completion().usage
        else:
            with pytest.raises(type(end)) as raised:
                await broker.complete(request, flow="cell")
            times += len(last) if isinstance(end, NoReplyError) else 0
            assert (raised.value.used or Usage()) == possibly_billed(times, prompt_estimate(request), request)
            assert times or raised.value.used is None
        assert broker.in_flight == broker.waiting == 0

    run(main)


def possibly_billed(times: int, prompt_tokens: int, request: ChatRequest) -> Usage:
    generated = times * request.max_tokens * request.samples
    return Usage(possibly_billed_prompt_tokens=times * prompt_tokens, possibly_billed_generated_tokens=generated)


def test_who_waits_to_be_sent_again_when_the_money_ends_tells_what_may_be_billed() -> None:
    async def main(clock: Callable[[], float]) -> None:
        server = Server([NoReplyError("gone"), ExhaustedError("no money left")], latency=0.1)
        broker = Broker(server, Quota(), clock=clock)
        requests = [broker.complete(asked(), flow="cell") for _ in range(2)]
        first, second = await asyncio.gather(*requests, return_exceptions=True)
        assert isinstance(first, ExhaustedError)
        assert isinstance(second, ExhaustedError)
        assert first.used == possibly_billed(1, prompt_estimate(asked()), asked())
        assert second.used is None
        with pytest.raises(ExhaustedError, match="no money left"):
            async with broker.job_slot():
                pytest.fail("no job is started any more")

    run(main)


def test_who_is_cancelled_holds_up_nobody() -> None:
    async def main(clock: Callable[[], float]) -> None:
        broker = Broker(Server(), Quota(max_in_flight=1), clock=clock)
        tasks = [asyncio.create_task(broker.complete(asked(number), flow="cell")) for number in range(4)]
        await asyncio.sleep(0.5)
        tasks[0].cancel()  # in flight
        tasks[2].cancel()  # waiting
        results = await asyncio.gather(*tasks, return_exceptions=True)
        kinds = Counter(type(result).__name__ for result in results)
        assert kinds == {"CancelledError": 2, "Completion": 2}
        assert broker.in_flight == broker.waiting == 0

    assert run(main) < 3


def test_thousands_wait_are_in_flight_and_give_up_in_any_order() -> None:
    async def main(clock: Callable[[], float]) -> None:
        server = Server(latency=50.0)
        broker = Broker(server, Quota(requests_per_minute=120_000, max_in_flight=2000), clock=clock)
        tasks = [
            asyncio.create_task(broker.complete(asked(n), flow=str(n % 50), urgent=n % 100 < 50)) for n in range(4000)
        ]
        await asyncio.sleep(5.0)
        assert (broker.in_flight, broker.waiting) == (2000, 2000)
        for task in tasks[::-2]:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert Counter(type(result).__name__ for result in results) == {"CancelledError": 2000, "Completion": 2000}
        assert broker.in_flight == broker.waiting == 0

    assert run(main) < 120


def test_models_share_the_limits_of_their_base_and_no_others() -> None:
    async def main(clock: Callable[[], float]) -> None:
        broker = Broker(Server(), Quota(requests_per_minute=60), clock=clock, group=lambda name: name.partition("/")[0])
        models = ["base", "base/tuned", "other"]
        await asyncio.gather(*(broker.complete(asked(n, models[n % 3]), flow=models[n % 3]) for n in range(30)))
        assert clock() == pytest.approx(20, abs=0.5)

    run(main)


def test_jobs_wait_for_a_slot_and_for_tomorrow() -> None:
    async def main(clock: Callable[[], float]) -> None:
        broker = Broker(Server(), Quota(concurrent_jobs=2, jobs_per_day=5), clock=clock)
        running, started = Counter[str](), list[float]()

        async def job(age: float | None = None) -> None:
            async with broker.job_slot(age):
                running["now"] += 1
                running["most"] = max(running["most"], running["now"])
                started.append(clock())
                await asyncio.sleep(100)
                running["now"] -= 1

        await asyncio.gather(job(age=3600.0), *(job() for _ in range(6)))
        assert running["most"] == 2
        assert started[:5] == pytest.approx([0, 0, 100, 100, 200], abs=1)
        assert started[5:] == pytest.approx([86_400 - 3600, 86_400], abs=1)
        broker.park_jobs(1000.0)
        before = clock()
        await job()
        assert started[-1] - before == pytest.approx(1000, abs=1)

    run(main)
