"""Jobs that a run leaves behind at a provider when it is stopped: they go on, and cost what they cost, unless cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from engine import plugins
from engine.domain.sweep import Account
from engine.hosted import Access, JobState
from engine.hosted_errors import ProviderError
from engine.plugins import Kind
from engine.run.account.jobs import Jobs
from engine.run.account.journal import JobRecord, Journal
from engine.run.quota.broker import Broker
from engine.store.layout import RunDirectory


def open_jobs(run: RunDirectory) -> list[JobRecord]:
    """Return the records of a run's jobs that were not over when last seen."""
    return [record for record in Journal(run.jobs).records() if not (record.state and JobState(record.state).is_over)]


def cancel(run: RunDirectory, accounts: Mapping[str, Account]) -> Sequence[str]:
    """Cancel every job of a run that is not over, and say what became of each.

    Args:
        run: The run directory.
        accounts: The accounts by name.
    """
    left: dict[str, list[JobRecord]] = {}
    for record in open_jobs(run):
        left.setdefault(record.account, []).append(record)
    said: list[str] = []
    for name, records in left.items():
        if name in accounts:
            said += asyncio.run(_cancelled(name, accounts[name], records, Journal(run.jobs)))
        else:
            said.append(f"{len(records)} jobs are of the account {name}, which the sweep no longer has")
    return said


async def _cancelled(name: str, account: Account, records: Sequence[JobRecord], journal: Journal) -> list[str]:
    provider = plugins.adapter(Kind.PROVIDER, account.provider)
    try:
        session = provider.connect(Access(name, account.base_url, account.key_env, account.timeout))
    except ProviderError as error:
        return [f"cannot reach {name}: {error}"]
    jobs = Jobs(name, account, provider, session, Broker(session, account.quota), journal)
    try:
        return [await _ended(jobs, record) for record in records]
    finally:
        await session.close()


async def _ended(jobs: Jobs, record: JobRecord) -> str:
    try:
        job = await jobs.cancel(record)
    except ProviderError as error:
        return f"{record.key}: {record.job_id or 'its job'} could not be cancelled: {error}"
    return f"{record.key}: no job was made" if job is None else f"{record.key}: {job.job_id} is {job.state.value}"
