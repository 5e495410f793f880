"""Fine-tuning jobs of one account: each is made once, waited for however long it takes, and counted once."""

from __future__ import annotations

import asyncio
import hashlib
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from engine.domain.cost import Usage
from engine.ports.account import HostedTuning, TuningRequest
from engine.ports.provider import Job, JobOrder, JobState, Step
from engine.ports.provider_errors import (
    BlockedError,
    NoReplyError,
    ProviderError,
    RejectedError,
    ThrottledError,
    UnavailableError,
)
from engine.run.accounts.backoff import repeated
from engine.run.accounts.journal import JobRecord
from engine.run.accounts.once import Once
from engine.run.accounts.quota.broker import Broker

SINCE = 30 * 24 * 3600.0
"""A job of the same key is adopted when it is at most so old, in seconds: another run directory may have paid for it."""

SUFFIX = "dosimeter"

UNPAID = frozenset({JobState.FAILED, JobState.CANCELLED})
"""A job that ended so left nothing; another may be made."""


@dataclass(slots=True)
class Jobs(Once[Job]):
    """Runs the jobs of one account, within its quota, which the broker owns."""

    broker: Broker = field(kw_only=True)

    async def run(self, request: TuningRequest) -> HostedTuning:
        """Return what came of a job, made now or long ago.

        Raises:
            BlockedError: The provider's moderation refused the data or the model.
            ProviderError: It failed, or cannot be made.
        """
        async with self.broker.job_slot(self._age(request.key)):
            job = await self._over(request.key, await self._job(request))
        record = self.journal.read(request.key)
        new = 0 if record is not None and record.is_booked else job.trained_tokens or 0
        used = Usage(train_tokens=new + (0 if record is None else record.unbooked_tokens))
        if job.state is JobState.SUCCEEDED:
            return HostedTuning(job, await self._losses(job), used)
        ended: ProviderError = RejectedError(f"the job {job.job_id} ended as {job.state.value}: {job.reason}")
        if job.state is JobState.BLOCKED:
            ended = BlockedError(job.reason or "the provider's moderation refused it")
        ended.used = used
        raise ended

    async def _losses(self, job: Job) -> Sequence[Step]:
        """Return a job's losses; a provider that does not keep them takes nothing from what was paid for."""
        try:
            return await repeated(partial(self.session.losses, job.job_id))
        except ProviderError:
            return ()

    def _age(self, key: str) -> float | None:
        """Return seconds since a job was made that runs already; None when it is still to be made."""
        record = self.journal.read(key)
        return max(0.0, time.time() - record.intended_at) if record is not None and record.job_id else None

    async def _job(self, request: TuningRequest) -> Job:
        """Find the job of a request, or make it."""
        record = self.journal.read(request.key)
        if record is not None and record.job_id:
            job = await repeated(partial(self.session.job, record.job_id))
            if job.state not in UNPAID:
                return self._seen(request.key, job)
            self._given_up(record, job)
        job = await self.made(request.key, partial(self._file, request), partial(self._created, request))
        return self._seen(request.key, job)

    def _given_up(self, record: JobRecord, job: Job) -> None:
        """Note that a job ended for nothing: nothing is to be looked for, and what it cost is still to be booked."""
        unbooked = record.unbooked_tokens + (0 if record.is_booked else job.trained_tokens or 0)
        self.journal.write(replace(record, state=job.state.value, is_booked=True, unbooked_tokens=unbooked))

    async def _created(self, request: TuningRequest, file_id: str) -> Job:
        return await self.session.create_job(_order(request, file_id))

    async def look(self, key: str) -> Job | None:
        """Return the newest job of a key that left something, or still may; else one of our last request that ended for nothing.

        What the latter cost is to be booked, though the process that made it died before it knew its id. Providers tell
        `created_at` in whole seconds.
        """
        record = self.journal.read(key)
        is_pending = record is not None and record.latest_arrival(self.account.timeout) is not None
        since = int(record.intended_at) if record is not None and is_pending else math.inf
        jobs = [job for job in await self.session.jobs(time.time() - SINCE) if job.key == key]
        ours = [job for job in jobs if job.state not in UNPAID or job.created_at >= since]
        return max(ours, key=lambda job: (job.state not in UNPAID, job.created_at), default=None)

    def identity(self, made: Job) -> str:
        """Return its id."""
        return made.job_id

    def park(self, seconds: float) -> None:
        """Start no job for so long."""
        self.broker.park_jobs(seconds)

    async def _file(self, request: TuningRequest) -> str:
        """Return the id of the sample at the provider, uploaded once whatever cells have it."""
        content = self.provider.training_file(request.rows)
        name = f"dosimeter-{hashlib.sha256(content).hexdigest()[:32]}.jsonl"
        there = await repeated(self.session.files)
        return there[name] if name in there else await repeated(partial(self.session.upload, name, content))

    async def _over(self, key: str, job: Job) -> Job:
        """Wait until a job will not change any more."""
        seconds = min(1.0, self.account.poll_seconds)
        while not job.state.is_over:
            await asyncio.sleep(seconds)
            seconds = min(self.account.poll_seconds, 1.5 * seconds)
            try:
                seen = await repeated(partial(self.session.job, job.job_id))
            except (ThrottledError, NoReplyError, UnavailableError):
                continue  # it trains on, whether or not anybody can see it
            if seen.state is not job.state:
                self._seen(key, seen)
            job = seen
        return job

    def _seen(self, key: str, job: Job) -> Job:
        record = self.journal.read(key) or JobRecord(key, self.name, self.account.provider, job.created_at)
        self.journal.write(replace(record, job_id=job.job_id, state=job.state.value))
        return job

    async def cancel(self, record: JobRecord) -> str:
        """Cancel a job of this run, and say what it is now; '' where none was made. One that is over stays as it is."""
        job_id = record.job_id
        if not job_id:
            found = await self.found(record.key, record.latest_arrival(self.account.timeout))
            if found is None:
                self.journal.write(replace(record, state=JobState.FAILED.value))
                return ""
            job_id = found.job_id
        job = self._seen(record.key, await repeated(partial(self.session.cancel_job, job_id)))
        return f"{job.job_id} is {job.state.value}"


def _order(request: TuningRequest, file_id: str) -> JobOrder:
    return JobOrder(
        request.key,
        request.model,
        file_id,
        request.epochs,
        request.batch_size,
        request.lr_multiplier,
        request.seed,
        SUFFIX,
        request.lr,
    )
