"""What costs money is made once, whatever is lost: a reply, this process, or the machine.

Providers know no idempotency (OpenAI's API reference, 2026-11: no such header on `fine_tuning/jobs` or `batches`), so: look for
the key among what is there; write down the intent; send the request once; write down the id; only then wait. A request whose
reply was lost is never repeated before its work has been looked for, for longer than lists lag. Of two processes on one machine
that want the same thing, the second waits until the first one's is listed, and finds it.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic, TypeVar

from filelock import AsyncFileLock

from engine.domain.sweep import Account
from engine.hosted import JobState
from engine.hosted_errors import ProviderError, Throttled, Unanswered, Unavailable
from engine.run.account.journal import JobRecord, Journal
from engine.run.account.patience import PATIENT, TRIES, Patience, pause, repeated
from engine.store.layout import SEALED

T = TypeVar("T")

DAY_PAUSE = 1800.0
"""Seconds until the next try when a day's limit is used up and the provider does not say until when."""


def _unparked(_seconds: float) -> None:
    """Nobody else has to wait."""


@dataclass(frozen=True, slots=True)
class Once(Generic[T]):
    """Makes what costs money at one account: jobs, or batches.

    Attributes:
        name: The account's name.
        account: Its settings.
        journal: Where records are kept.
        look: Looks once for what carries a key at the provider.
        identity: Returns the provider's name for it.
        park: Told for how many seconds nothing may be made, when a day's limit is used up.
        patience: How long lists may lag.
    """

    name: str
    account: Account
    journal: Journal
    look: Callable[[str], Awaitable[T | None]]
    identity: Callable[[T], str]
    park: Callable[[float], None] = _unparked
    patience: Patience = PATIENT

    async def made(self, key: str, send: Callable[[], Awaitable[T]]) -> T:
        """Return what there is of a key, found or made.

        Args:
            key: What the request carries, and finds it again.
            send: Sends the request, once.

        Raises:
            ProviderError: It was refused, or cannot be made.
        """
        async with self._alone(key):
            record = self.journal.read(key)
            found = await self.found(key, None if record is None else record.heard(self.account.timeout))
            return await self._sent(key, send) if found is None else self._noted(key, found)

    async def found(self, key: str, heard: float | None) -> T | None:
        """Look for what carries a key; when a request for it may have been heard, for as long as lists lag after that.

        Args:
            key: The key.
            heard: When, in seconds since the epoch; None when it was not.
        """
        while True:
            there = await repeated(lambda: self.look(key))
            if there is not None or heard is None or time.time() > heard + self.patience.lag:
                return there
            await asyncio.sleep(self.patience.look)

    async def _sent(self, key: str, send: Callable[[], Awaitable[T]]) -> T:
        """Send a request; when nobody knows whether it was heard, look for its work before trying again."""
        for attempt in range(TRIES):
            record = JobRecord(key, self.name, self.account.provider, time.time())
            self.journal.write(record)
            try:
                made = await send()
            except Throttled as error:  # nothing was done
                await asyncio.sleep(self._until_allowed(error, attempt))
            except (Unanswered, Unavailable):
                if (found := await self.found(key, time.time())) is not None:
                    return self._noted(key, found)
                await asyncio.sleep(pause(attempt, None))
            except ProviderError:  # refused: there is nothing to look for
                self.journal.write(replace(record, state=JobState.FAILED.value))
                raise
            else:
                self._noted(key, made)
                await self._listed(key)
                return made
        raise Unavailable(f"nothing could be made in {TRIES} tries")

    def _noted(self, key: str, made: T) -> T:
        """Write down the id of what carries a key; what another one of the same key came to is not what this one does."""
        record = self.journal.read(key) or JobRecord(key, self.name, self.account.provider, time.time())
        if record.job_id != self.identity(made):
            fresh = JobRecord(key, self.name, self.account.provider, record.intended_at, self.identity(made))
            self.journal.write(fresh)
        return made

    def _until_allowed(self, error: Throttled, attempt: int) -> float:
        """Return the seconds until the next try, and let others wait as long where the limit is a day's."""
        if error.scope != "day":
            return pause(attempt, error.seconds)
        seconds = error.seconds or DAY_PAUSE
        self.park(seconds)
        return seconds

    async def _listed(self, key: str) -> None:
        """Wait until whoever looks next will find it; it is made, whether or not the list can be had."""
        try:
            await self.found(key, time.time())
        except ProviderError:
            return

    def _alone(self, key: str) -> AsyncFileLock:
        """Let nobody else on this machine make the same thing meanwhile; the system lets go when a process dies."""
        folder = Path(tempfile.gettempdir()) / f"dosimeter-{os.getuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        what = hashlib.sha256(f"{self.account.provider} {self.account.base_url} {key}".encode()).hexdigest()[:32]
        return AsyncFileLock(folder / f"{what}.lock", mode=SEALED, thread_local=False)
