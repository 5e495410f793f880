"""Asks that are handed in as a batch, at half the price and within a day: made once, found again, and asked anew where expired."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from engine.domain.sweep import Account
from engine.hosted import Ask, BatchState, JobState, Session, Told
from engine.hosted_errors import ProviderError, Unanswered, Unavailable
from engine.run.account.journal import JobRecord, Journal
from engine.run.account.patience import PATIENT, TRIES, Patience, pause, repeated
from engine.run.account.replies import asked

ROUNDS = 3
"""A batch may expire before all of it is done; what is left is handed in so often."""

KEY_DIGITS = 32


@dataclass(frozen=True, slots=True)
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

    async def ask_all(self, asks: Sequence[Ask]) -> list[Told | ProviderError]:
        """Return the reply to each ask, in order."""
        told: dict[str, Told | ProviderError] = {}
        by_id = {f"{index:06d}": ask for index, ask in enumerate(asks)}
        for round_ in range(ROUNDS):
            left = {custom_id: ask for custom_id, ask in by_id.items() if custom_id not in told}
            if left:
                made = await self._answered(left, round_)
                told |= {key: reply for key, reply in made.items() if not isinstance(reply, Unavailable)}
        gone = Unavailable("the batch expired before it was answered")
        return [told.get(custom_id, gone) for custom_id in by_id]

    async def _answered(self, asks: Mapping[str, Ask], round_: int) -> Mapping[str, Told | ProviderError]:
        """Return what a batch says; one that was refused as a whole is forgotten, so that another may be made."""
        try:
            return (await self._over(await self._batch(asks, round_))).told
        except ProviderError:
            if (record := self.journal.read(_key(asks, round_))) is not None:
                self.journal.write(replace(record, job_id="", state=JobState.FAILED.value))
            raise

    async def _batch(self, asks: Mapping[str, Ask], round_: int) -> str:
        """Return the id of the batch of some asks, found or made."""
        key = _key(asks, round_)
        record = self.journal.read(key)
        if record is not None and record.job_id:
            return record.job_id
        found = await self._found(key, None if record is None else record.heard(self.account.timeout))
        return self._noted(key, found or await self._made(key, asks))

    async def _made(self, key: str, asks: Mapping[str, Ask]) -> str:
        for attempt in range(TRIES):
            record = JobRecord(key, self.name, self.account.provider, time.time())
            self.journal.write(record)
            try:
                return await self.session.submit_batch(key, asks)
            except (Unanswered, Unavailable):
                if (found := await self._found(key, time.time())) is not None:
                    return found
                await asyncio.sleep(pause(attempt, None))
            except ProviderError:  # refused: there is nothing to look for
                self.journal.write(replace(record, state=JobState.FAILED.value))
                raise
        raise Unavailable(f"no batch could be handed in in {TRIES} tries")

    async def _found(self, key: str, heard: float | None) -> str | None:
        """Look for the batch of a key; when a request for one may have been heard, for as long as lists lag after that."""
        while True:
            there = await repeated(self.session.batches)
            if key in there or heard is None or time.time() > heard + self.patience.lag:
                return there.get(key)
            await asyncio.sleep(self.patience.look)

    def _noted(self, key: str, batch_id: str) -> str:
        record = self.journal.read(key) or JobRecord(key, self.name, self.account.provider, time.time())
        self.journal.write(JobRecord(record.key, record.account, record.provider, record.intended_at, batch_id))
        return batch_id

    async def _over(self, batch_id: str) -> BatchState:
        """Wait until a batch will not change any more."""
        while True:
            state = await repeated(lambda: self.session.batch(batch_id))
            if state.is_over:
                return state
            await asyncio.sleep(self.account.poll_seconds)


def _key(asks: Mapping[str, Ask], round_: int) -> str:
    """What tells a batch from all others: what is asked, in its order, and for which time."""
    text = "\n".join([str(round_), *(f"{custom_id} {asked(ask)}" for custom_id, ask in asks.items())])
    return f"batch-{hashlib.sha256(text.encode()).hexdigest()[:KEY_DIGITS]}"
