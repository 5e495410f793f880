"""Batches are paid for once too, and read once: at an account that is a list in memory, where anything can go wrong."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import pytest

from engine import registry
from engine.domain.adapters import Kind
from engine.domain.conversation import Turn
from engine.domain.cost import Usage
from engine.domain.sweep import Account
from engine.ports.chat import ChatRequest, Choice, Completion, FinishReason
from engine.ports.provider import BatchState, Session
from engine.ports.provider_errors import (
    DeniedError,
    NoReplyError,
    ProviderError,
    RejectedError,
    ThrottledError,
    UnavailableError,
)
from engine.run.accounts.backoff import Patience
from engine.run.accounts.batches import ROUNDS, Batches
from engine.run.accounts.journal import JobRecord, Journal, batch_key
from engine.run.accounts.leftover import left_behind
from engine.run.accounts.replies import ReplyLog, names
from engine.store.layout import RunDirectory

LISTED_AFTER, LAG = 0.15, 0.2
FLOW = "generate-1"
REQUESTS = [ChatRequest("m", (Turn("user", text),), 8) for text in ("one", "two", "one")]
ANSWERS = ["ONE", "TWO", "ONE"]

Answer = Completion | ProviderError


def upper(request: ChatRequest) -> Answer:
    return Completion((Choice(request.turns[0].text.upper(), FinishReason.STOP),), 1, 0, 1)


@dataclass
class Shop:
    """An account: the batches that it took, and what becomes of the next requests.

    Attributes:
        takes: Seconds that a request to take one takes.
        fails: The error that it ends in, though it was heard; None where it is answered.
        answer: What is said to each request.
        refuses: Why each next batch is refused as a whole, in order.
        refused: Why each batch was.
        looks: What goes wrong when a batch is looked at next, in order.
        taken: When each batch was taken, by key.
        files: What was uploaded.
        requests: The requests of each batch.
        cancelled: The batches that were cancelled.
    """

    takes: float = 0.0
    fails: ProviderError | None = None
    answer: Callable[[ChatRequest], Answer] = upper
    refuses: list[ProviderError] = field(default_factory=list)
    refused: dict[str, ProviderError] = field(default_factory=dict)
    looks: list[ProviderError] = field(default_factory=list)
    taken: list[tuple[str, float]] = field(default_factory=list)
    files: list[Mapping[str, ChatRequest]] = field(default_factory=list)
    requests: list[Mapping[str, ChatRequest]] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)

    async def upload_batch(self, key: str, requests: Mapping[str, ChatRequest]) -> str:
        self.files.append(requests)
        return f"{key} {len(self.files) - 1}"

    async def submit_batch(self, key: str, file_id: str) -> str:
        await asyncio.sleep(self.takes)
        self.taken.append((key, time.time()))
        self.requests.append(self.files[int(file_id.split()[1])])
        if (error := self.fails) is not None:
            self.fails = None
            raise error
        batch_id = f"batch-{len(self.taken) - 1}"
        if self.refuses:
            self.refused[batch_id] = self.refuses.pop(0)
        return batch_id

    async def batches(self) -> Mapping[str, str]:
        seen = time.time() - LISTED_AFTER
        return {key: f"batch-{place}" for place, (key, at) in enumerate(self.taken) if at <= seen}

    async def batch(self, batch_id: str) -> BatchState:
        if self.looks:
            raise self.looks.pop(0)
        requests = self.requests[int(batch_id.removeprefix("batch-"))]
        state = BatchState(batch_id, is_over=True)
        if batch_id in self.refused:
            return replace(state, refusal=self.refused[batch_id])
        return replace(state, replies={name: self.answer(request) for name, request in requests.items()})

    async def cancel_batch(self, batch_id: str) -> None:
        self.cancelled.append(batch_id)


@dataclass
class Setup:
    """Whoever requests: a run directory, and its account."""

    root: Path
    shop: Shop

    @property
    def run(self) -> RunDirectory:
        return RunDirectory(self.root)

    @property
    def journal(self) -> Journal:
        return Journal(self.run.batches)

    @property
    def batches(self) -> Batches:
        account = Account(provider="hosted/openai", timeout=10.0, poll_seconds=0.01, batch=True)
        provider: Any = registry.adapter(Kind.PROVIDER, "hosted/openai")
        return Batches("ours", account, provider, cast("Session", self.shop), self.journal, Patience(LAG, 0.02))

    def ask(self, requests: Sequence[ChatRequest] = REQUESTS) -> list[str | type[ProviderError]]:
        """Ask everything, as another worker of the same run directory would."""
        with ReplyLog(self.run, FLOW).open() as log:
            named = names(requests)
            answers = asyncio.run(self.batches.complete_all(FLOW, named, log))
        replies = [answers[name] for name in named]
        return [reply.choices[0].text if isinstance(reply, Completion) else type(reply) for reply in replies]


@pytest.fixture
def setup(tmp_path: Path) -> Setup:
    return Setup(tmp_path, Shop())


def test_a_request_that_took_longer_than_lists_lag_is_not_repeated(setup: Setup) -> None:
    setup.shop.takes, setup.shop.fails = LAG + 0.05, NoReplyError("no reply within so many seconds")
    assert setup.ask() == ANSWERS
    assert len(setup.shop.taken) == 1


def test_after_a_kill_the_batch_may_have_been_taken_just_now(setup: Setup, tmp_path: Path) -> None:
    Setup(tmp_path / "elsewhere", setup.shop).ask()
    setup.shop.taken[0] = batch_key(FLOW, 1), time.time()
    # The reply may take 10 seconds, of which 5 have passed.
    setup.journal.write(JobRecord(batch_key(FLOW, 1), "ours", "hosted/openai", time.time() - 5.0))
    for _ in range(2):
        assert setup.ask() == ANSWERS
        assert len(setup.shop.taken) == 1


def test_a_batch_of_another_run_directory_is_read_and_only_the_rest_is_asked(setup: Setup, tmp_path: Path) -> None:
    Setup(tmp_path / "elsewhere", setup.shop).ask(REQUESTS[:1])
    time.sleep(LISTED_AFTER)
    assert setup.ask() == ANSWERS
    assert [len(requests) for requests in setup.shop.requests] == [1, 2]


def test_replies_are_on_the_disk_before_their_batch_counts_as_read(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that dies between two lines of its log finds the same batch again, and writes each reply once."""
    write = ReplyLog.write

    def dies(log: ReplyLog, name: str, request: ChatRequest, completion: Completion) -> None:
        monkeypatch.setattr(ReplyLog, "write", write)
        write(log, name, request, completion)
        raise KeyboardInterrupt

    monkeypatch.setattr(ReplyLog, "write", dies)
    with pytest.raises(KeyboardInterrupt):
        setup.ask()
    (record,) = setup.journal.records()
    assert (record.job_id, record.state) == ("batch-0", "")
    assert setup.ask() == ANSWERS
    assert len(setup.shop.taken) == 1
    assert ReplyLog(setup.run, FLOW).bought.keys() == names(REQUESTS).keys()


def test_an_outage_while_a_batch_is_worked_on_costs_nothing_but_time(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.run.accounts.backoff.TRIES", 1)
    setup.shop.looks = [UnavailableError("503"), NoReplyError("no reply"), ThrottledError("429")]
    assert setup.ask() == ANSWERS
    assert len(setup.shop.taken) == 1


def test_what_expired_is_asked_again_and_what_was_answered_is_not(setup: Setup) -> None:
    setup.shop.answer = lambda request: (
        UnavailableError("expired") if request is REQUESTS[1] and len(setup.shop.requests) == 1 else upper(request)
    )
    assert setup.ask() == ANSWERS
    assert [len(requests) for requests in setup.shop.requests] == [3, 1]


def test_what_always_expires_is_given_up_and_asked_by_the_next_run(setup: Setup) -> None:
    setup.shop.answer = lambda _: UnavailableError("expired")
    assert setup.ask() == [UnavailableError] * 3
    assert len(setup.shop.taken) == ROUNDS
    setup.shop.answer = upper
    assert setup.ask() == ANSWERS
    assert len(setup.shop.taken) == ROUNDS + 1


@pytest.mark.parametrize(
    ("refusal", "error"), [(RejectedError("400"), UnavailableError), (DeniedError("403"), DeniedError)]
)
def test_a_batch_that_was_refused_as_a_whole_is_handed_in_again_by_the_next_run(
    refusal: ProviderError, error: type[ProviderError], setup: Setup
) -> None:
    setup.shop.refuses = [refusal]
    assert setup.ask() == [error] * 3
    assert setup.ask() == ANSWERS
    assert len(setup.shop.taken) == 2


def test_a_batch_that_found_the_queue_full_is_handed_in_again(setup: Setup) -> None:
    setup.shop.refuses = [ThrottledError("too many tokens wait", 0.01, "day")]
    assert setup.ask() == ANSWERS
    assert [key for key, _ in setup.shop.taken] == [batch_key(FLOW, 1), batch_key(FLOW, 2)]


def test_a_request_that_came_too_fast_is_repeated_and_one_that_was_refused_is_not_looked_for(setup: Setup) -> None:
    setup.shop.fails = ThrottledError("429", 0.01)
    assert setup.ask() == ANSWERS
    setup.shop.fails = RejectedError("400")
    assert setup.ask([ChatRequest("m", (Turn("user", "three"),), 8)]) == [UnavailableError]
    assert setup.journal.records()[-1].latest_arrival(10.0) is None


def test_a_batch_that_goes_on_is_cancelled_and_read_by_the_next_run(setup: Setup) -> None:
    setup.shop.looks = [DeniedError("the key is gone")] * 2
    assert setup.ask() == [DeniedError] * 3
    (record,) = left_behind(setup.run).batches
    assert asyncio.run(setup.batches.cancel(record)).startswith("batch-0 ends")
    assert setup.shop.cancelled == ["batch-0"]
    assert setup.ask() == ANSWERS
    assert len(setup.shop.taken) == 1
    assert left_behind(setup.run).batches == []


def test_a_batch_that_was_refused_or_is_gone_is_nobodys(setup: Setup, tmp_path: Path) -> None:
    setup.shop.refuses = [DeniedError("no money, long ago")]
    assert Setup(tmp_path / "elsewhere", setup.shop).ask() == [DeniedError] * 3
    time.sleep(LISTED_AFTER)
    assert setup.ask() == ANSWERS
    assert [key for key, _ in setup.shop.taken] == [batch_key(FLOW, 1)] * 2


def test_of_equal_asks_the_one_that_was_answered_keeps_its_answer_and_the_other_is_asked(setup: Setup) -> None:
    requests = [REQUESTS[0]] * 2
    _, second = names(requests)
    with ReplyLog(setup.run, FLOW).open() as log:
        log.write(second, REQUESTS[0], Completion((Choice("another", FinishReason.STOP),), 1, 0, 1))
    assert setup.ask(requests) == ["ONE", "another"]
    assert [len(batch) for batch in setup.shop.requests] == [1]


def test_what_a_batch_of_before_answers_is_not_asked_live(setup: Setup) -> None:
    setup.shop.looks = [DeniedError("stopped here")] * 2
    setup.ask()
    with ReplyLog(setup.run, FLOW).open() as log:
        answers = asyncio.run(setup.batches.begun(FLOW, names(REQUESTS), log))
    assert len(answers) == len(REQUESTS)
    assert left_behind(setup.run).batches == []


def test_an_answer_with_too_few_samples_is_refused_and_paid_and_an_uncounted_prompt_is_estimated(setup: Setup) -> None:
    uncounted = Completion((Choice("ONE", FinishReason.STOP),), 0, 0, 1)
    setup.shop.answer = lambda _: uncounted
    requests = [REQUESTS[0], replace(REQUESTS[1], samples=2)]
    with ReplyLog(setup.run, FLOW).open() as log:
        whole, few = asyncio.run(setup.batches.complete_all(FLOW, names(requests), log)).values()
    assert whole == replace(uncounted, prompt_tokens=1), "three characters"
    assert isinstance(few, RejectedError)
    assert few.used == Usage(prompt_tokens=1, generated_tokens=1)
