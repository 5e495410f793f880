"""The process dies after any effect it has, at the provider or on the disk, and whoever goes on pays for nothing twice.

The account is in memory, in a time that it makes up. `test_hosted.py` has the same at the local mock server.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from engine.domain.conversation import Turn
from engine.domain.sweep import Account
from engine.ports.account import TuningRequest
from engine.ports.chat import ChatRequest, Choice, Completion, FinishReason
from engine.ports.provider import BatchState, Job, JobOrder, JobState, Session, Step
from engine.ports.provider_errors import NoReplyError, ProviderError, RejectedError, ThrottledError, UnavailableError
from engine.run.accounts.backoff import Patience
from engine.run.accounts.jobs import UNPAID
from engine.run.accounts.leftover import left_behind
from engine.store.layout import RunDirectory

from .mortal import Process

TRAINED = 10
"""Tokens that every job trains and bills, however it ends."""
LISTED_AFTER, LAG, TAKES = 20.0, 30.0, 1.5
"""Seconds after which lists show what is new, for how long it is looked for, and that the request for a job takes."""
REQUEST = TuningRequest("tune-1", "m", (), 1, None, None, 0)
ASKS = [ChatRequest("m", (Turn("user", text),), 8) for text in ("one", "two", "one")]
ACCOUNT = Account(provider="hosted/openai", timeout=10.0, poll_seconds=0.1)
LIVE = 16
"""More effects than an undisturbed process has."""


@dataclass
class Shop:
    """An account: what it has made and answered, and what goes wrong next.

    Attributes:
        fault: The error that the next request for a job or a batch ends in, and whether it was heard.
        too_fast: How many of the next lists are refused, because they were asked for too fast.
        ends: How the next job ends.
        expires: Whether the next batch ends before its last request is answered.
        jobs_made, batches_taken: What there is, with its time.
        answered: How often each request was answered, and billed.
        open: Batches that are not over.
    """

    fault: tuple[ProviderError, bool] | None = None
    too_fast: int = 0
    ends: JobState = JobState.SUCCEEDED
    expires: bool = False
    jobs_made: list[Job] = field(default_factory=list)
    files_there: dict[str, str] = field(default_factory=dict)
    batch_files: list[Mapping[str, ChatRequest]] = field(default_factory=list)
    batches_taken: list[tuple[str, float, BatchState]] = field(default_factory=list)
    answered: Counter[str] = field(default_factory=Counter)

    def _heard(self, make: Callable[[], None]) -> None:
        """Make something, unless the next fault is that it was not heard."""
        fault, self.fault = self.fault, None
        if fault is None or fault[1]:
            make()
        if fault is not None:
            raise fault[0]

    async def files(self) -> Mapping[str, str]:
        return self.files_there

    async def upload(self, name: str, content: bytes) -> str:
        self.files_there[name] = f"file-{len(content)}"
        return self.files_there[name]

    async def create_job(self, order: JobOrder) -> Job:
        def make() -> None:
            name, state, self.ends = f"job-{len(self.jobs_made)}", self.ends, JobState.SUCCEEDED
            self.jobs_made.append(Job(name, order.key, state, "m", f"ft:{name}", TRAINED, time.time()))

        try:
            self._heard(make)
        finally:
            await asyncio.sleep(TAKES)
        return self.jobs_made[-1]

    def _listed(self) -> None:
        if self.too_fast:
            self.too_fast -= 1
            raise ThrottledError("429", 0.1)

    async def jobs(self, since: float) -> Sequence[Job]:
        self._listed()
        return [job for job in self.jobs_made if since <= job.created_at <= time.time() - LISTED_AFTER]

    async def job(self, job_id: str) -> Job:
        return self.jobs_made[int(job_id.removeprefix("job-"))]

    async def cancel_job(self, job_id: str) -> Job:
        return await self.job(job_id)  # over already

    async def losses(self, job_id: str) -> Sequence[Step]:
        del job_id
        return [Step(1, 2.0)]

    async def upload_batch(self, key: str, requests: Mapping[str, ChatRequest]) -> str:
        del key
        self.batch_files.append(requests)
        return str(len(self.batch_files) - 1)

    async def submit_batch(self, key: str, file_id: str) -> str:
        def make() -> None:
            requests = self.batch_files[int(file_id)]
            expired, self.expires = (list(requests)[-1:] if self.expires else []), False
            replies: dict[str, Completion | ProviderError] = {}
            for name, request in requests.items():
                if name in expired:
                    replies[name] = UnavailableError("expired")
                    continue
                self.answered[name] += 1
                replies[name] = Completion((Choice(request.turns[0].text.upper(), FinishReason.STOP),), 1, 0, 1)
            state = BatchState(f"batch-{len(self.batches_taken)}", is_over=True, replies=replies)
            self.batches_taken.append((key, time.time(), state))

        self._heard(make)
        return self.batches_taken[-1][2].batch_id

    async def batches(self) -> Mapping[str, str]:
        self._listed()
        listed = time.time() - LISTED_AFTER
        return {key: state.batch_id for key, at, state in self.batches_taken if at <= listed}

    async def batch(self, batch_id: str) -> BatchState:
        return self.batches_taken[int(batch_id.removeprefix("batch-"))][2]

    async def cancel_batch(self, batch_id: str) -> None:
        await self.batch(batch_id)  # over already

    async def close(self) -> None:
        pass


def process_at(shop: Shop, root: Path) -> Process:
    return Process(root, lambda: cast("Session", shop), REQUEST, ASKS, "generate-1", ACCOUNT, Patience(LAG, 2.0))


@pytest.fixture
def made_up_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A clock that only sleeping moves; locks are in a folder of the test's own."""
    now, breathe = [1_800_000_000.0], asyncio.sleep

    async def sleep(seconds: float) -> None:
        now[0] += seconds
        await breathe(0)

    monkeypatch.setattr(time, "time", lambda: now[0])
    monkeypatch.setattr(asyncio, "sleep", sleep)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


FAULTS = (
    (NoReplyError("no reply"), True),
    (NoReplyError("no reply"), False),
    (UnavailableError("503"), True),
    (UnavailableError("503"), False),
    (ThrottledError("429", 1.0), False),
    (RejectedError("400"), False),
)


def check(process: Process, shop: Shop) -> None:
    """Nothing was bought twice, and no token that was billed is missing in the books."""
    assert len([job for job in shop.jobs_made if job.state not in UNPAID]) <= 1
    assert max(shop.answered.values(), default=0) <= 1
    assert process.booked <= TRAINED * len(shop.jobs_made)


def settle(process: Process, shop: Shop) -> None:
    """Let undisturbed processes end what is left: all is there, once, and the books are the bill."""
    shop.fault, shop.ends, shop.expires, shop.too_fast = None, JobState.SUCCEEDED, False, 0
    for _ in range(2):  # the first may still hear that a job had failed
        process.live()
    check(process, shop)
    assert process.booked == TRAINED * len(shop.jobs_made)
    assert process.answers == ["ONE", "TWO", "ONE"]
    assert len(left_behind(RunDirectory(process.root))) == 0


@pytest.mark.usefixtures("made_up_time")
@pytest.mark.parametrize("ends", [JobState.SUCCEEDED, JobState.CANCELLED])
def test_a_process_that_dies_after_any_effect_and_the_next_one_after_any_too(ends: JobState, tmp_path: Path) -> None:
    effects = process_at(Shop(ends=ends), tmp_path / "undisturbed").live()
    assert {"create_job", "commit"} <= set(effects)
    for first in range(1, len(effects) + 1):
        for second in range(1, LIVE, 2):
            shop = Shop(ends=ends)
            process = process_at(shop, tmp_path / f"{first}-{second}")
            assert process.live(first) == effects[:first]
            process.live(second)
            settle(process, shop)


class Machine(RuleBasedStateMachine):
    """Crashes, faults and cancellations in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = TemporaryDirectory()
        self.shop = Shop()
        self.process = process_at(self.shop, Path(self.folder.name))

    @rule(after=st.integers(1, LIVE))
    def live(self, after: int) -> None:
        self.process.live(after)

    @rule(fault=st.sampled_from(FAULTS))
    def spoil(self, fault: tuple[ProviderError, bool]) -> None:
        self.shop.fault = fault

    @rule(state=st.sampled_from(sorted(UNPAID)))
    def fail_the_next_job(self, state: JobState) -> None:
        self.shop.ends = state

    @rule()
    def expire_the_next_batch(self) -> None:
        self.shop.expires = True

    @rule(times=st.integers(1, 20))
    def refuse_lists(self, times: int) -> None:
        self.shop.too_fast = times

    @rule()
    def cancel(self) -> None:
        self.process.cancel()

    @invariant()
    def nothing_is_bought_twice(self) -> None:
        check(self.process, self.shop)

    def teardown(self) -> None:
        settle(self.process, self.shop)
        self.folder.cleanup()


@pytest.mark.usefixtures("made_up_time")
def test_whatever_goes_wrong_every_job_is_made_once_and_every_answer_bought_once() -> None:
    examples = settings(max_examples=60, stateful_step_count=8, deadline=None)
    run_state_machine_as_test(Machine, settings=examples)


@pytest.mark.usefixtures("made_up_time")
@pytest.mark.parametrize("refused", range(1, 12))
def test_a_request_whose_reply_was_lost_is_not_repeated_while_lists_cannot_be_had(refused: int, tmp_path: Path) -> None:
    shop = Shop()
    process = process_at(shop, tmp_path)
    create = shop.create_job

    async def heard_but_not_answered(order: JobOrder) -> Job:
        shop.fault, shop.too_fast = (NoReplyError("no reply"), True), refused
        return await create(order)

    shop.create_job = heard_but_not_answered  # type: ignore[method-assign]
    process.live()
    shop.create_job = create  # type: ignore[method-assign]
    settle(process, shop)
    assert len(shop.jobs_made) == 1
