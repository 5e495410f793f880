"""What a run leaves behind at a provider when it is stopped: jobs and batches go on, and cost what they cost, unless cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from engine import registry
from engine.domain.adapters import Kind
from engine.domain.sweep import Account
from engine.plan.accounts import access_of
from engine.ports.provider import JobState
from engine.ports.provider_errors import ProviderError
from engine.run.accounts.batches import Batches
from engine.run.accounts.jobs import Jobs
from engine.run.accounts.journal import JobRecord, Journal
from engine.run.accounts.quota.broker import Broker
from engine.store.layout import RunDirectory


@dataclass(slots=True)
class Left:
    """What of a run may go on at its providers.

    Attributes:
        jobs: Records of the fine-tuning jobs that were not over when last seen.
        batches: Records of the batches whose answers were not read.
    """

    jobs: list[JobRecord] = field(default_factory=list)
    batches: list[JobRecord] = field(default_factory=list)

    def __len__(self) -> int:
        """Count them."""
        return len(self.jobs) + len(self.batches)


def left_behind(run: RunDirectory) -> Left:
    """Return what of a run may go on; what somebody else has made is not its to cancel."""
    return Left(_open(Journal(run.jobs)), _open(Journal(run.batches)))


def _open(journal: Journal) -> list[JobRecord]:
    ours = (record for record in journal.records() if not record.is_adopted)
    return [record for record in ours if not (record.state and JobState(record.state).is_over)]


def cancel(run: RunDirectory, accounts: Mapping[str, Account]) -> Sequence[str]:
    """Cancel whatever of a run may go on, and say what became of each."""
    left = left_behind(run)
    said: list[str] = []
    for name in sorted({record.account for record in (*left.jobs, *left.batches)}):
        jobs, batches = ([one for one in records if one.account == name] for records in (left.jobs, left.batches))
        own = Left(jobs, batches)
        if name in accounts:
            said += asyncio.run(_cancelled(name, accounts[name], own, run))
        else:
            said.append(f"{len(own)} jobs or batches are of the account {name}, which the sweep no longer has")
    return said


async def _cancelled(name: str, account: Account, left: Left, run: RunDirectory) -> list[str]:
    provider = registry.adapter(Kind.PROVIDER, account.provider)
    try:
        session = provider.connect(access_of(name, account))
    except ProviderError as error:
        return [f"cannot reach {name}: {error}"]
    broker = Broker(session, account.quota, group=provider.quota_group)
    jobs = Jobs(name, account, provider, session, Journal(run.jobs), broker=broker)
    batches = Batches(name, account, provider, session, Journal(run.batches))
    try:
        return [await _said(one, "job", jobs.cancel) for one in left.jobs] + [
            await _said(one, "batch", batches.cancel) for one in left.batches
        ]
    finally:
        await session.close()


async def _said(record: JobRecord, what: str, cancel: Callable[[JobRecord], Awaitable[str]]) -> str:
    try:
        said = await cancel(record) or f"no {what} was made"
    except ProviderError as error:
        said = f"{record.job_id or f'its {what}'} could not be cancelled: {error}"
    return f"{record.key}: {said}"
