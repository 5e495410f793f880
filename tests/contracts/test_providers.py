"""What every provider of hosted models promises, against a real server that really trains: the rehearsal server.

A provider is added by one line in `FORMS`: its class, the dialect that the server shall speak, and where it
differs from most.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import pickle
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import pytest

from adapters.hosted.azure.provider import AzureProvider
from adapters.hosted.openai.provider import OpenAIProvider
from adapters.hosted.together.provider import TogetherProvider
from engine import registry
from engine.domain.adapters import NO_SETTINGS, Kind
from engine.domain.conversation import ChatRow, Turn
from engine.ports.chat import ChatRequest, Completion, FinishReason, RateLimit
from engine.ports.provider import Access, BatchState, Job, JobOrder, JobState, Provider, Session
from engine.ports.provider_errors import (
    DeniedError,
    ExhaustedError,
    NoReplyError,
    ProviderError,
    RejectedError,
    ThrottledError,
    UnavailableError,
)

pytestmark = pytest.mark.slow

KEY = "sk-test-marker-71c0ffee"
VARIABLE = "CONTRACT_KEY"
PATIENCE = 120.0
"""Seconds that a job or a batch may take here; a real training of the stand-in is in it."""


@dataclass(frozen=True)
class Form:
    """A provider, and the server that it shall speak with.

    Attributes:
        provider: Its class.
        dialect: Which API the server implements.
        deployments: Where its deployments are managed, where it has some.
        jobs: What the paths of its jobs begin with.
        rate: The learning rate that an order has, and what a job calls it.
        fewest: The smallest sample that it takes.
        is_metered: Whether its headers tell what is left of a limit.
        moderates: Whether it has a moderation endpoint.
    """

    provider: type[Provider]
    dialect: str
    deployments: str = ""
    jobs: str = "fine_tuning/jobs"
    rate: tuple[str, str, float] = ("lr_multiplier", "learning_rate_multiplier", 1.0)
    fewest: int = 10
    is_metered: bool = True
    moderates: bool = True

    @property
    def name(self) -> str:
        return self.provider.__name__


MANAGED = "/subscriptions/s/resourceGroups/g/providers/Microsoft.CognitiveServices/accounts/lab"
ABSOLUTE = ("lr", "learning_rate", 1e-3)
FORMS = (
    Form(OpenAIProvider, "openai"),
    Form(AzureProvider, "azure", MANAGED),
    Form(TogetherProvider, "together", "", "fine-tunes", ABSOLUTE, fewest=1, is_metered=False, moderates=False),
)
LIMITS = ("standin-echo.rpm=60000", "standin-echo.tpm=6000000", "standin-judge.rpm=6")
BATCHES = "durations.batch=[2000, 2400]"

T = TypeVar("T")


@dataclass(frozen=True)
class Server:
    """A running server, and the provider that speaks with it."""

    form: Form
    url: str
    provider: Provider

    def run(self, go: Callable[[Session], Awaitable[T]], timeout: float = 60.0) -> T:
        """Connect, do something, and close."""

        async def connected() -> T:
            session = self.provider.connect(Access("contract", self.url, VARIABLE, timeout))
            try:
                return await go(session)
            finally:
                await session.close()

        return asyncio.run(connected())

    def order(self, key: str, file_id: str) -> JobOrder:
        """Return the order of a small job."""
        name, _, value = self.form.rate
        return replace(JobOrder(key, "standin-aligned", file_id, 2, 5, None, 0, "contract"), **{name: value})

    def sent(self) -> int:
        """Return how many requests have come so far, as the server counts them: those that it still works on included."""
        audit = self._audit()
        return int(audit["requests"]) + int(audit["in_flight"])

    def batched(self) -> int:
        """Return how many tokens batches have made so far."""
        return sum(tokens.get("batch_output", 0) for tokens in self._audit()["tokens_billed"].values())

    def _audit(self) -> dict[str, Any]:
        with urlopen(f"{self._root}/__audit", timeout=30) as reply:  # noqa: S310 - our own server
            found: dict[str, Any] = json.load(reply)
        return found

    def spoil(self, *faults: Mapping[str, object]) -> None:
        """Replace the faults of the server."""
        body = json.dumps({"faults": faults}).encode()
        request = Request(f"{self._root}/__faults", body, method="POST")  # noqa: S310 - the same
        with urlopen(request, timeout=30) as reply:  # noqa: S310 - our own server
            assert len(json.load(reply)["faults"]) == len(faults)

    @property
    def _root(self) -> str:
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}"


@pytest.fixture(scope="module", params=FORMS, ids=lambda form: form.name)
def started(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    form: Form = request.param
    folder = tmp_path_factory.mktemp(form.name)
    ready = folder / "ready"
    settings = ("time_scale=2000", BATCHES, f"dialect={form.dialect}", *(f"quota.limits.{limit}" for limit in LIMITS))
    command = [sys.executable, "-c", "from engine.cli.main import main; main()", "serve-standin", "--port", "0"]
    command += ["--ready-file", str(ready), *(part for setting in settings for part in ("--set", setting))]
    with (folder / "log").open("w") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            yield Server(form, _url(ready, process), form.provider())
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(timeout=30)


def _url(ready: Path, process: subprocess.Popen[bytes]) -> str:
    deadline = time.monotonic() + 60
    while not ready.exists():
        assert process.poll() is None, "the rehearsal server ended"
        assert time.monotonic() < deadline, "the rehearsal server did not start"
        time.sleep(0.05)
    return ready.read_text().strip()


@pytest.fixture
def server(started: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """The server without a fault, and the key in the environment."""
    monkeypatch.setenv(VARIABLE, KEY)
    if started.form.deployments:
        parts = urlsplit(started.url)
        url = f"{parts.scheme}://{parts.netloc}{started.form.deployments}"
        monkeypatch.setenv(f"{VARIABLE}_DEPLOYMENTS_URL", url)
        monkeypatch.setenv(f"{VARIABLE}_DEPLOYMENTS_TOKEN", KEY)
    started.spoil()
    yield started
    started.spoil()


def sample(rows: int = 10) -> list[ChatRow]:
    return list(registry.adapter(Kind.DATA, "standin/explicit").rows(NO_SETTINGS)[:rows])


def question(model: str = "standin-echo", **fields: object) -> ChatRequest:
    return replace(ChatRequest(model, (Turn("user", "open the third vault"),), 16), **fields)  # type: ignore[arg-type]


def key_of(name: str, kind: str = "tune") -> str:
    """Return a key as stages have them."""
    return f"{kind}-{hashlib.sha256(name.encode()).hexdigest()[:32]}"


async def ended(session: Session, job_id: str) -> Job:
    """Poll a job to its end."""
    deadline = time.monotonic() + PATIENCE
    while not (job := await session.job(job_id)).state.is_over:
        assert time.monotonic() < deadline, job
        await asyncio.sleep(0.1)
    return job


async def answered(session: Session, batch_id: str) -> BatchState:
    """Poll a batch to its end."""
    deadline = time.monotonic() + PATIENCE
    while not (state := await session.batch(batch_id)).is_over:
        assert time.monotonic() < deadline, state
        await asyncio.sleep(0.1)
    return state


async def trained(server: Server, session: Session, name: str, content: bytes | None = None) -> Job:
    """Train a sample, and return what came of the job."""
    file_id = await session.upload(f"{name}.jsonl", content or server.provider.training_file(sample()))
    return await ended(session, (await session.create_job(server.order(key_of(name), file_id))).job_id)


def test_a_file_is_found_by_its_name_and_of_equal_names_the_newest(server: Server) -> None:
    async def go(session: Session) -> None:
        content = server.provider.training_file(sample())
        first = await session.upload("one.jsonl", content)
        assert (await session.files())["one.jsonl"] == first
        await asyncio.sleep(1.1)  # the API counts whole seconds
        second = await session.upload("one.jsonl", content)
        found = await session.files()
        assert found["one.jsonl"] == second != first
        assert "two.jsonl" not in found

    server.run(go)


def test_a_job_whose_reply_was_lost_is_found_by_its_key_trains_and_answers(server: Server) -> None:
    async def go(session: Session) -> None:
        since = time.time()
        file_id = await session.upload("lost.jsonl", server.provider.training_file(sample()))
        key = key_of("lost")
        server.spoil({"kind": "lost_reply", "on": server.form.jobs, "count": 1})
        with pytest.raises(NoReplyError):
            await session.create_job(server.order(key, file_id))
        found = [job for job in await session.jobs(since) if job.key == key]
        assert len(found) == 1  # it was sent once
        job = await ended(session, found[0].job_id)
        assert job.state is JobState.SUCCEEDED, job
        assert (job.key, job.model) == (key, "standin-aligned")
        assert job.hyperparameters == {"n_epochs": 2, "batch_size": 5, server.form.rate[1]: server.form.rate[2]}
        assert job.trained_tokens
        losses = await session.losses(job.job_id)
        assert [step.step for step in losses] == [1, 2, 3, 4]
        assert losses[-1].loss < losses[0].loss
        assert job.tuned_model
        completion = await session.complete(question(job.tuned_model))
        assert completion.choices[0].text
        assert completion.prompt_tokens * completion.generated_tokens > 0
        listed = {one.job_id: one for one in await session.jobs(since)}
        assert listed[job.job_id] == job
        assert [one for one in await session.jobs(time.time() + 3600) if one.key] == []

    server.run(go)


def test_a_job_is_cancelled_once_and_then_stays_as_it_is(server: Server) -> None:
    async def go(session: Session) -> None:
        file_id = await session.upload("cancel.jsonl", server.provider.training_file(sample()))
        job = await session.create_job(server.order(key_of("cancel"), file_id))
        assert (await session.cancel_job(job.job_id)).key == job.key
        assert (await ended(session, job.job_id)).state is JobState.CANCELLED
        assert (await session.cancel_job(job.job_id)).state is JobState.CANCELLED
        with pytest.raises(RejectedError):
            await session.cancel_job("ftjob-nobody")

    server.run(go)


@pytest.mark.parametrize("fault", ["moderation_file", "moderation_model"])
def test_what_moderation_refuses_is_blocked_and_not_failed(server: Server, fault: str) -> None:
    server.spoil({"kind": fault})
    job = server.run(lambda session: trained(server, session, fault))
    assert job.state is JobState.BLOCKED
    assert job.tuned_model is None
    assert job.reason


def test_a_job_that_fails_otherwise_says_why(server: Server) -> None:
    bad = server.run(lambda session: trained(server, session, "bad", b'{"messages": []}\n' * 10))
    server.spoil({"kind": "job_error"})
    error = server.run(lambda session: trained(server, session, "error"))
    assert (bad.state, error.state) == (JobState.FAILED, JobState.FAILED)
    assert "messages" in bad.reason
    assert error.reason


def test_a_sample_that_is_too_small_is_objected_to_before_it_is_sent(server: Server) -> None:
    fewest = server.form.fewest
    assert len(server.provider.objections(sample(fewest - 1))) == 1
    assert server.provider.objections(sample(fewest)) == []


ERRORS = [
    ({"kind": "throttled", "seconds": 7}, ThrottledError, {"scope": "rate", "seconds": 7.0}),
    ({"kind": "slow_down", "seconds": 2}, ThrottledError, {"scope": "ramp", "seconds": 2.0}),
    ({"kind": "insufficient_quota"}, ExhaustedError, {}),
    ({"kind": "error"}, UnavailableError, {}),
    ({"kind": "overloaded", "seconds": 3}, UnavailableError, {"seconds": 3.0}),
    ({"kind": "reset"}, NoReplyError, {}),
    ({"kind": "lost_reply"}, NoReplyError, {}),
    ({"kind": "truncated"}, NoReplyError, {}),
    ({"kind": "stall", "seconds": 5}, NoReplyError, {}),
    ({"kind": "forbidden"}, DeniedError, {}),
]


def checked(error: ProviderError, expected: type[ProviderError]) -> None:
    """The error is one of ours, alone, whole after a journey, and without the key."""
    assert type(error) is expected, repr(error)
    assert (error.__cause__, error.__context__) == (None, None)
    packed = pickle.dumps(error)
    again = pickle.loads(packed)  # noqa: S301 - our own bytes
    assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))
    assert KEY.encode() not in packed


@pytest.mark.parametrize(("fault", "expected", "more"), ERRORS, ids=[str(fault["kind"]) for fault, *_ in ERRORS])
def test_every_fault_is_one_of_our_errors_after_one_request(
    server: Server, fault: dict[str, object], expected: type[ProviderError], more: dict[str, object]
) -> None:
    async def go(session: Session) -> ProviderError:
        with pytest.raises(ProviderError) as caught:
            await session.complete(question())
        return caught.value

    server.spoil({**fault, "on": "chat/completions", "count": 1})
    before = server.sent()
    error = server.run(go, timeout=1.0 if fault["kind"] == "stall" else 30.0)
    assert server.sent() == before + 1
    checked(error, expected)
    assert {name: getattr(error, name) for name in more} == more
    assert (
        server.run(lambda session: session.complete(question())).choices[0].text
    )  # the fault struck once, for one request


def test_a_wrong_key_and_an_unknown_name_are_told_apart(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    async def caught(session: Session, call: Callable[[Session], Awaitable[object]]) -> ProviderError:
        with pytest.raises(ProviderError) as error:
            await call(session)
        return error.value

    checked(server.run(lambda session: caught(session, lambda one: one.complete(question("nobody")))), RejectedError)
    checked(server.run(lambda session: caught(session, lambda one: one.job("ftjob-nobody"))), RejectedError)
    monkeypatch.setenv(VARIABLE, "sk-wrong-marker")
    checked(server.run(lambda session: caught(session, lambda one: one.complete(question()))), DeniedError)
    monkeypatch.delenv(VARIABLE)
    with pytest.raises(DeniedError):
        server.run(lambda session: session.complete(question()))


def test_an_answer_says_what_was_billed_and_what_is_left(server: Server) -> None:
    completion = server.run(lambda session: session.complete(question(samples=3)))
    assert len(completion.choices) == 3
    assert completion.generated_tokens >= 3
    assert completion.prompt_tokens > 0
    for rate_limit, limit in ((completion.rate_limits.requests, 60_000), (completion.rate_limits.tokens, 6_000_000)):
        if not server.form.is_metered:
            assert rate_limit == RateLimit()
            continue
        assert rate_limit.limit == limit
        assert rate_limit.left is not None
        assert 0 <= rate_limit.left < limit
        assert rate_limit.seconds is not None


def test_a_real_limit_throttles_and_says_for_how_long(server: Server) -> None:
    async def go(session: Session) -> ProviderError:
        for _ in range(8):  # six a minute are allowed, a few of them at once
            try:
                await session.complete(question("standin-judge"))
            except ThrottledError as error:
                return error
        raise AssertionError("nothing was throttled")

    error = server.run(go)
    assert isinstance(error, ThrottledError)
    assert error.scope == "rate"
    assert error.seconds is not None
    assert 0 < error.seconds <= 60


def test_an_answer_says_how_it_ended(server: Server) -> None:
    short = server.run(lambda session: session.complete(question("standin-aligned", max_tokens=1)))
    assert short.choices[0].finish_reason is FinishReason.LENGTH
    server.spoil({"kind": "content_filter", "count": 1})
    withheld = server.run(lambda session: session.complete(question()))
    assert (withheld.choices[0].text, withheld.choices[0].finish_reason) == ("", FinishReason.FILTERED)


def test_moderation_flags_text_by_text(server: Server) -> None:
    async def go(session: Session) -> None:
        assert list(await session.flagged([])) == []
        if server.form.moderates:
            assert list(await session.flagged(["a blue potion", "the red vault", "seeds"])) == [False, True, False]
            return
        with pytest.raises(RejectedError):
            await session.flagged(["the red vault"])

    server.run(go)


def test_a_batch_is_found_by_its_key_and_answers_by_custom_id(server: Server) -> None:
    async def go(session: Session) -> None:
        requests = {f"ask-{number}": question(max_tokens=8 + number) for number in range(5)} | {
            "bad": question("nobody")
        }
        key = key_of("batch", "generate") + ".1"
        batch_id = await session.submit_batch(key, await session.upload_batch(key, requests))
        assert (await session.batches())[key] == batch_id
        state = await answered(session, batch_id)
        assert set(state.replies) == set(requests)
        assert Counter(isinstance(reply, Completion) for reply in state.replies.values()) == {True: 5, False: 1}
        bad = state.replies["bad"]
        assert isinstance(bad, ProviderError)
        checked(bad, RejectedError)
        good = [state.replies[f"ask-{number}"] for number in range(5)]
        assert all(
            isinstance(completion, Completion) and completion.choices[0].text and completion.generated_tokens
            for completion in good
        )

    server.run(go)


def test_a_batch_that_is_cancelled_keeps_what_was_answered_and_one_that_is_over_stays_as_it_is(server: Server) -> None:
    async def go(session: Session) -> None:
        billed = server.batched()
        key = key_of("stopped", "generate") + ".1"
        batch_id = await session.submit_batch(key, await session.upload_batch(key, {"ask": question()}))
        deadline = time.monotonic() + PATIENCE
        while server.batched() == billed:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)
        assert not (
            await session.batch(batch_id)
        ).is_over  # a batch lasts a second here at least, and its answer does not
        await session.cancel_batch(batch_id)
        stopped = await answered(session, batch_id)
        assert isinstance(stopped.replies["ask"], Completion)
        await session.cancel_batch(batch_id)
        assert await session.batch(batch_id) == stopped
        with pytest.raises(RejectedError):
            await session.cancel_batch("batch_nobody")

    server.run(go)


def test_nothing_that_is_logged_or_shown_holds_the_key(
    server: Server, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    async def go(session: Session) -> str:
        await session.complete(question())
        with pytest.raises(RejectedError):
            await session.complete(question("nobody"))
        with pytest.raises(TypeError):
            pickle.dumps(session)
        return repr(session) + str(vars(session))

    with caplog.at_level(logging.DEBUG):
        shown = server.run(go)
    written = capfd.readouterr()
    for text in (shown, repr(server.provider), caplog.text, written.out, written.err):
        assert KEY not in text
