"""What cannot be provoked at the local mock server: requests that are heard late, at an account that is a list in memory."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import pytest

from engine import registry
from engine.domain.adapters import Kind
from engine.domain.sweep import Account
from engine.ports.account import HostedTuning, TuningRequest
from engine.ports.provider import Job, JobOrder, JobState, Session, Step
from engine.ports.provider_errors import (
    BlockedError,
    DeniedError,
    ExhaustedError,
    NoReplyError,
    ProviderError,
    RejectedError,
)
from engine.run.accounts.backoff import Patience
from engine.run.accounts.jobs import Jobs
from engine.run.accounts.journal import JobRecord, Journal
from engine.run.accounts.leftover import left_behind
from engine.run.accounts.quota.broker import Broker
from engine.store.layout import RunDirectory

REQUEST = TuningRequest("tune-1", "m", (), 1, None, None, 0)
LISTED_AFTER, LAG = 0.15, 0.2


@dataclass
class Shop:
    """An account: what it has made, and what it does with the next requests for a job.

    Attributes:
        takes: Seconds that a request for a job takes.
        fails: The error that it ends in; None where it is answered.
        is_heard: Whether a job is made all the same.
        ends: How jobs end.
        made: The jobs.
        looks: How often they were listed.
        looked: How often before the last one was made.
    """

    takes: float = 0.0
    fails: ProviderError | None = None
    is_heard: bool = True
    ends: JobState = JobState.SUCCEEDED
    made: list[Job] = field(default_factory=list)
    looks: int = 0
    looked: int = 0

    async def files(self) -> Mapping[str, str]:
        return {}

    async def upload(self, name: str, content: bytes) -> str:
        return f"{name} {len(content)}"

    async def create_job(self, order: JobOrder) -> Job:
        self.looked = self.looks
        await asyncio.sleep(self.takes)
        if self.is_heard:
            self.make(order.key)
        if (error := self.fails) is not None:
            self.fails, self.is_heard, self.takes = None, True, 0.0
            raise error
        return self.made[-1]

    def make(self, key: str) -> None:
        name = f"job-{len(self.made)}"
        self.made.append(Job(name, key, self.ends, "m", f"ft:m:{name}", 10, time.time()))

    async def jobs(self, since: float) -> Sequence[Job]:
        self.looks += 1
        return [job for job in self.made if since <= job.created_at <= time.time() - LISTED_AFTER]

    async def job(self, job_id: str) -> Job:
        return next(job for job in self.made if job.job_id == job_id)

    async def cancel_job(self, job_id: str) -> Job:
        place = int(job_id.removeprefix("job-"))
        self.made[place] = replace(self.made[place], state=JobState.CANCELLED)
        return self.made[place]

    async def losses(self, job_id: str) -> Sequence[Step]:
        del job_id
        return [Step(1, 2.0)]


def jobs_of(shop: Shop, tmp_path: Path) -> Jobs:
    account = Account(provider="hosted/openai", timeout=10.0)
    session = cast("Session", shop)
    provider: Any = registry.adapter(Kind.PROVIDER, "hosted/openai")
    journal = Journal(RunDirectory(tmp_path).jobs)
    broker = Broker(session, account.quota)
    return Jobs("ours", account, provider, session, journal, Patience(LAG, 0.02), broker=broker)


def run(shop: Shop, tmp_path: Path) -> HostedTuning:
    return asyncio.run(jobs_of(shop, tmp_path).run(REQUEST))


def test_a_request_that_took_longer_than_lists_lag_is_looked_for_from_its_end(tmp_path: Path) -> None:
    shop = Shop(takes=LAG + 0.05, fails=NoReplyError("no reply within so many seconds"))
    assert run(shop, tmp_path).job.job_id == "job-0"
    assert len(shop.made) == 1


def test_after_a_kill_the_request_may_have_been_heard_just_now(tmp_path: Path) -> None:
    shop = Shop()
    jobs_of(shop, tmp_path).journal.write(JobRecord("tune-1", "ours", "hosted/openai", time.time() - 5.0))
    shop.make("tune-1")  # the reply may take 10 seconds
    assert run(shop, tmp_path).job.job_id == "job-0"
    assert len(shop.made) == 1


def test_a_request_that_was_not_heard_is_sent_again(tmp_path: Path) -> None:
    shop = Shop(fails=NoReplyError("the connection broke"), is_heard=False)
    assert run(shop, tmp_path).job.job_id == "job-0"
    assert len(shop.made) == 1
    assert shop.looks > 2


@pytest.mark.parametrize(
    "error", [RejectedError("400"), DeniedError("403"), ExhaustedError("429"), BlockedError("400")], ids=repr
)
def test_a_refusal_leaves_no_job_that_may_go_on(error: ProviderError, tmp_path: Path) -> None:
    shop = Shop(fails=error, is_heard=False)
    with pytest.raises(type(error)):
        run(shop, tmp_path)
    assert left_behind(RunDirectory(tmp_path)).jobs == []
    looks = shop.looks
    assert run(shop, tmp_path).job.job_id == "job-0"
    assert shop.looked == looks + 2, "nothing can have been made, so nothing is waited for"


@pytest.mark.parametrize(
    ("ends", "error", "jobs"),
    [(JobState.FAILED, RejectedError, 2), (JobState.CANCELLED, RejectedError, 2), (JobState.BLOCKED, BlockedError, 1)],
)
def test_what_ended_for_nothing_is_made_again_and_what_was_blocked_is_not(
    ends: JobState, error: type[ProviderError], jobs: int, tmp_path: Path
) -> None:
    shop = Shop(ends=ends)
    for _ in range(2):
        with pytest.raises(error):
            run(shop, tmp_path)
    assert len(shop.made) == jobs


def test_a_job_that_another_run_directory_has_paid_for_is_adopted(tmp_path: Path) -> None:
    shop = Shop()
    first = run(shop, tmp_path / "one")
    shop.made[0] = replace(shop.made[0], created_at=time.time() - 3600)
    assert run(shop, tmp_path / "two").job.job_id == first.job.job_id
    assert len(shop.made) == 1


def test_two_run_directories_at_once_make_one_job(tmp_path: Path) -> None:
    shop = Shop()

    async def both() -> list[HostedTuning]:
        return await asyncio.gather(*(jobs_of(shop, tmp_path / name).run(REQUEST) for name in ("one", "two")))

    first, second = asyncio.run(both())
    assert first.job == second.job
    assert len(shop.made) == 1


def test_what_another_job_cost_is_not_what_the_one_in_its_place_costs(tmp_path: Path) -> None:
    shop = Shop()
    journal = Journal(RunDirectory(tmp_path).jobs)
    assert run(shop, tmp_path).usage.train_tokens == 10
    journal.book("tune-1")
    assert run(shop, tmp_path).usage.train_tokens == 0
    shop.made[0] = replace(shop.made[0], state=JobState.CANCELLED)
    assert run(shop, tmp_path).usage.train_tokens == 10
    journal.book("tune-1")
    shop.made[1] = replace(shop.made[1], state=JobState.CANCELLED)
    shop.make("tune-1")  # by somebody else
    assert run(shop, tmp_path).usage.train_tokens == 10


def test_what_a_cancelled_job_cost_is_booked_with_the_next_one(tmp_path: Path) -> None:
    shop = Shop(ends=JobState.CANCELLED)
    with pytest.raises(RejectedError) as caught:
        run(shop, tmp_path)
    assert caught.value.used is not None  # and lost: the driver is killed before it is booked
    shop.ends = JobState.SUCCEEDED
    for _ in range(2):
        assert run(shop, tmp_path).usage.train_tokens == 20
    Journal(RunDirectory(tmp_path).jobs).book("tune-1")
    assert run(shop, tmp_path).usage.train_tokens == 0


def test_a_slow_upload_does_not_make_the_request_look_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shop, slow = Shop(), Shop.upload

    async def upload(self: Shop, name: str, content: bytes) -> str:
        await asyncio.sleep(0.3)
        return await slow(self, name, content)

    monkeypatch.setattr(Shop, "upload", upload)
    begun = time.time()
    run(shop, tmp_path)
    (record,) = Journal(RunDirectory(tmp_path).jobs).records()
    assert record.intended_at >= begun + 0.3


def test_a_job_of_another_run_directory_is_not_left_behind_by_this_one(tmp_path: Path) -> None:
    shop = Shop(ends=JobState.RUNNING)
    shop.make("tune-1")
    shop.made[0] = replace(shop.made[0], created_at=time.time() - 60)
    jobs = jobs_of(shop, tmp_path)
    with pytest.raises(TimeoutError):
        asyncio.run(asyncio.wait_for(jobs.run(REQUEST), 0.2))
    assert jobs.journal.records()[0].job_id == "job-0"
    assert left_behind(RunDirectory(tmp_path)).jobs == []


def test_a_job_that_may_have_been_made_is_found_before_it_is_cancelled(tmp_path: Path) -> None:
    shop, journal = Shop(ends=JobState.RUNNING), Journal(RunDirectory(tmp_path).jobs)
    journal.write(JobRecord("tune-1", "ours", "hosted/openai", time.time()))
    shop.make("tune-1")
    (record,) = left_behind(RunDirectory(tmp_path)).jobs
    assert asyncio.run(jobs_of(shop, tmp_path).cancel(record)) == "job-0 is cancelled"
    assert shop.made[0].state is JobState.CANCELLED
    assert left_behind(RunDirectory(tmp_path)).jobs == []


def test_where_no_job_was_made_there_is_none_to_cancel_and_none_that_may_go_on(tmp_path: Path) -> None:
    Journal(RunDirectory(tmp_path).jobs).write(JobRecord("tune-1", "ours", "hosted/openai", time.time()))
    (record,) = left_behind(RunDirectory(tmp_path)).jobs
    assert asyncio.run(jobs_of(Shop(), tmp_path).cancel(record)) == ""
    assert left_behind(RunDirectory(tmp_path)).jobs == []
