"""Requests that are handed in as a batch, at half the price and within a day: made once, read once, and asked anew where expired.

A stage's batches are numbered, and its requests have names that follow from what is asked. Whoever goes on after a crash finds the
batch by its number, and of its answers those that are still wanted by their names, whatever was read before.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, replace
from functools import partial

from engine.ports.chat import ChatRequest, Completion
from engine.ports.provider import BatchState, JobState
from engine.ports.provider_errors import NoReplyError, ProviderError, RejectedError, ThrottledError, UnavailableError
from engine.run.accounts.backoff import repeated
from engine.run.accounts.journal import JobRecord, batch_key
from engine.run.accounts.once import DAY_PAUSE, LONGEST_DAY, Once
from engine.run.accounts.quota.pool import prompt_estimate
from engine.run.accounts.replies import ReplyLog, Requests

ROUNDS = 3
"""A batch may expire before all of it is done; what is left is handed in so often."""

Answers = dict[str, Completion | ProviderError]
"""By name."""


@dataclass(slots=True)
class Batches(Once[str]):
    """Runs the batches of one account."""

    async def complete_all(self, stage_key: str, named: Requests, log: ReplyLog) -> Answers:
        """Return the reply to each request of a stage. What is in its open log is not bought again; what is new goes there."""
        answers = await self.begun(stage_key, named, log)
        rounds, deadline = 0, time.monotonic() + LONGEST_DAY
        while rounds < ROUNDS and time.monotonic() < deadline and (left := _without(named, answers)):
            try:
                new = await self._answers(batch_key(stage_key, len(self.journal.batches(stage_key)) + 1), left, log)
            except ThrottledError as full:  # too much waits in batches already
                await asyncio.sleep(full.seconds or DAY_PAUSE)
            except ProviderError as refusal:
                return answers | dict.fromkeys(left, _unread(refusal))
            else:
                answers |= new
                rounds += 1
        gone = UnavailableError(f"{ROUNDS} batches ended before all was answered")
        return answers | dict.fromkeys(_without(named, answers), gone)

    async def begun(self, stage_key: str, named: Requests, log: ReplyLog) -> Answers:
        """Return what was bought before, by name: the replies in the log, and those of batches that were not read."""
        answers: Answers = {name: log.bought[name] for name in named if name in log.bought}
        for record in self.unread(stage_key):
            left = _without(named, answers)
            try:
                answers |= await self._answers(record.key, left, log)
            except ProviderError as error:
                if record in self.unread(stage_key):  # it may still be answered, and is not to be bought again
                    return answers | dict.fromkeys(left, error)
        return answers

    def unread(self, stage_key: str) -> list[JobRecord]:
        """Return the records of a stage's batches whose answers were not read."""
        return [record for record in self.journal.batches(stage_key) if not record.state]

    async def _answers(self, key: str, left: Requests, log: ReplyLog) -> Answers:
        """Return what a batch says to some requests, found or made. Its replies are on the disk before it counts as read.

        Raises:
            ProviderError: It was refused as a whole.
        """
        if not left:  # a crash came after its answers were written
            self._read(key, "", JobState.SUCCEEDED)
            return {}
        record = self.journal.read(key)
        known = record.job_id if record is not None else ""
        upload, send = partial(self._upload, key, left), partial(self.session.submit_batch, key)
        batch_id = known or await self.made(key, upload, send)
        state = await self._over(batch_id)
        answers = {name: _checked(reply, left[name]) for name, reply in state.replies.items() if name in left}
        for name, reply in answers.items():
            if isinstance(reply, Completion):
                log.write(name, left[name], reply)
        log.sync()
        self._read(key, batch_id, JobState.SUCCEEDED if state.refusal is None else JobState.FAILED)
        if state.refusal is not None:
            raise state.refusal
        return {name: reply for name, reply in answers.items() if not isinstance(reply, UnavailableError)}

    async def _upload(self, key: str, requests: Requests) -> str:
        return await repeated(partial(self.session.upload_batch, key, requests))

    def _read(self, key: str, batch_id: str, state: JobState) -> None:
        """Note that a batch has said all that it ever will."""
        record = self.journal.read(key) or JobRecord(key, self.name, self.account.provider, time.time())
        self.journal.write(replace(record, job_id=batch_id or record.job_id, state=state.value))

    async def look(self, key: str) -> str | None:
        """Return the id of the batch of a key, or None where there is none that says anything: it was refused, or is gone."""
        batch_id = (await self.session.batches()).get(key)
        if batch_id is None:
            return None
        try:
            state = await self.session.batch(batch_id)
        except RejectedError:
            return None
        return batch_id if state.refusal is None else None

    def identity(self, made: str) -> str:
        """Return its id, which it is known by."""
        return made

    async def _over(self, batch_id: str) -> BatchState:
        """Wait until a batch will not change any more; one that is not there any more is refused."""
        while True:
            try:
                state = await repeated(partial(self.session.batch, batch_id))
            except (ThrottledError, NoReplyError, UnavailableError):
                state = None  # it goes on, whether or not anybody can see it
            except RejectedError as gone:
                return BatchState(batch_id, is_over=True, refusal=gone)
            if state is not None and state.is_over:
                return state
            await asyncio.sleep(self.account.poll_seconds)

    async def cancel(self, record: JobRecord) -> str:
        """Let a batch end, and say so; '' where none was made. What it has answered is read by the next run."""
        found = record.job_id or await self.found(record.key, record.latest_arrival(self.account.timeout))
        if not found:
            self.journal.write(replace(record, state=JobState.FAILED.value))
            return ""
        self.journal.write(replace(record, job_id=found))
        await repeated(partial(self.session.cancel_batch, found))
        return f"{found} ends; what it has answered is paid for, and the next run reads it"


def _without(named: Requests, answers: Answers) -> Requests:
    """Return what is not answered."""
    return {name: request for name, request in named.items() if name not in answers}


def _checked(reply: Completion | ProviderError, request: ChatRequest) -> Completion | ProviderError:
    """Return a reply of a batch, its prompt estimated where the provider does not count it; too few answers are an error."""
    if isinstance(reply, ProviderError):
        return reply
    whole = reply if reply.prompt_tokens else replace(reply, prompt_tokens=prompt_estimate(request))
    if len(whole.choices) == request.samples:
        return whole
    refused = RejectedError(f"the batch has {len(whole.choices)} of {request.samples} samples")
    refused.used = whole.usage
    return refused


def _unread(refusal: ProviderError) -> ProviderError:
    """Return why requests of a batch that was refused as a whole have no answer: nothing is said of any one of them."""
    return UnavailableError(f"the batch was refused: {refusal}") if isinstance(refusal, RejectedError) else refusal
