"""Asks that are handed in as a batch, at half the price and within a day: made once, read once, and asked anew where expired.

A flow's batches are numbered, and its asks have names that follow from what is asked. Whoever goes on after a crash finds the
batch by its number, and of its answers those that are still wanted by their names, whatever was read before.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from engine.domain.sweep import Account
from engine.hosted import Ask, BatchState, JobState, Session, Told
from engine.hosted_errors import ProviderError, Rejected, Throttled, Unanswered, Unavailable
from engine.run.account.journal import JobRecord, Journal, batch_key
from engine.run.account.once import DAY_PAUSE, Once
from engine.run.account.patience import PATIENT, Patience, repeated
from engine.run.account.replies import ReplyLog, asked

ROUNDS = 8
"""A batch may expire before all of it is done, or find the provider's queue full; what is left is handed in so often."""

Asks = Mapping[str, Ask]
Answers = dict[str, Told | ProviderError]
"""By name."""


@dataclass(slots=True)
class Batches:
    """Runs the batches of one account.

    Attributes:
        name: The account's name.
        account: Its settings.
        session: The connection.
        journal: Where records are kept.
        patience: How long lists may lag.
    """

    name: str
    account: Account
    session: Session
    journal: Journal
    patience: Patience = PATIENT
    _once: Once[str] = field(init=False)

    def __post_init__(self) -> None:
        """Know how a batch is looked for."""
        self._once = Once(self.name, self.account, self.journal, self.look, str, patience=self.patience)

    async def ask_all(self, flow: str, asks: Sequence[Ask], log: ReplyLog) -> list[Told | ProviderError]:
        """Return the reply to each ask, in order.

        Args:
            flow: The stage that asks.
            asks: What.
            log: Its replies, open: those that are there are not bought again, and new ones are written to it.
        """
        named = _named(asks)
        answers: Answers = {name: told for name, ask in named.items() if (told := log.taken(ask)) is not None}
        for _ in range(ROUNDS):
            left = {name: ask for name, ask in named.items() if name not in answers}
            if not left:
                break
            answers |= await self._answers(self._key(flow), left, log)
        gone = Unavailable(f"{ROUNDS} batches ended before all was answered")
        return [answers.get(name, gone) for name in named]

    def _key(self, flow: str) -> str:
        """Return the key of a flow's batch that has not been read yet, or of the next one."""
        records = self.journal.batches(flow)
        return next((record.key for record in records if not record.state), batch_key(flow, len(records) + 1))

    async def _answers(self, key: str, left: Asks, log: ReplyLog) -> Answers:
        """Return what a batch says to some asks, found or made. Its replies are on the disk before it is read no more."""
        record = self.journal.read(key)
        known = record.job_id if record is not None else ""
        batch_id = known or await self._once.made(key, partial(self.session.submit_batch, key, left))
        state = await self._over(batch_id)
        answers = {name: reply for name, reply in state.told.items() if name in left}
        for name, reply in answers.items():
            if isinstance(reply, Told):
                log.write(left[name], reply)
        log.sync()
        self._read(key, batch_id, state)
        if isinstance(state.refusal, Throttled):  # too much waits in batches already
            await asyncio.sleep(state.refusal.seconds or DAY_PAUSE)
        elif state.refusal is not None:
            return dict.fromkeys(left, _unread(state.refusal))
        return {name: reply for name, reply in answers.items() if not isinstance(reply, Unavailable)}

    def _read(self, key: str, batch_id: str, state: BatchState) -> None:
        """Note that a batch has said all that it ever will."""
        record = self.journal.read(key) or JobRecord(key, self.name, self.account.provider, 0.0)
        ended = JobState.SUCCEEDED if state.refusal is None else JobState.FAILED
        self.journal.write(replace(record, job_id=batch_id, state=ended.value))

    async def look(self, key: str) -> str | None:
        """Return the id of the batch of a key, or None where there is none."""
        return (await self.session.batches()).get(key)

    async def _over(self, batch_id: str) -> BatchState:
        """Wait until a batch will not change any more; one that is not there any more is refused."""
        while True:
            try:
                state = await repeated(partial(self.session.batch, batch_id))
            except (Throttled, Unanswered, Unavailable):
                state = None  # it goes on, whether or not anybody can see it
            except Rejected as gone:
                return BatchState(batch_id, is_over=True, completed=0, failed=0, total=0, refusal=gone)
            if state is not None and state.is_over:
                return state
            await asyncio.sleep(self.account.poll_seconds)

    async def cancel(self, record: JobRecord) -> str | None:
        """Let a batch end, and return its id, or None where none was made; what it has answered is read by the next run."""
        found = record.job_id or await self._once.found(record.key, record.heard(self.account.timeout))
        if not found:
            self.journal.write(replace(record, state=JobState.FAILED.value))
            return None
        self.journal.write(replace(record, job_id=found))
        await repeated(partial(self.session.cancel_batch, found))
        return found


def _unread(refusal: ProviderError) -> ProviderError:
    """Return why asks of a batch that was refused as a whole have no answer: nothing is said of any one of them."""
    return Unavailable(f"the batch was refused: {refusal}") if isinstance(refusal, Rejected) else refusal


def _named(asks: Sequence[Ask]) -> Asks:
    """Return asks by names that follow from what is asked; equal ones are numbered."""
    seen: Counter[str] = Counter()
    named = {}
    for ask in asks:
        what = asked(ask)
        seen[what] += 1
        named[f"{what}-{seen[what]}"] = ask
    return named
