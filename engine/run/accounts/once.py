"""What costs money (fine-tuning jobs, batches) is sent exactly once, even if a reply, this process or the machine is lost.

Providers have no idempotency keys (OpenAI's API reference, 2026-11: no such header on `fine_tuning/jobs` or `batches`), so: look for
a job that carries our key; upload what the request needs; look again, write down the intent, send the request once, write down
the id; only then wait. A request whose reply was lost is never repeated before its work has been looked for, for longer
than a new job may be missing from the provider's list. Of two processes on one machine that want the same thing, the second waits until the first one's is listed.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from filelock import AsyncFileLock, Timeout

from engine.domain.sweep import Account
from engine.ports.cache import cache_folder
from engine.ports.provider import JobState, Provider, Session
from engine.ports.provider_errors import NoReplyError, ProviderError, ThrottledError, UnavailableError
from engine.run.accounts.backoff import PATIENT, TRIES, Patience, backoff, repeated
from engine.run.accounts.journal import JobRecord, Journal
from engine.store.layout import SEALED

T = TypeVar("T")

DAY_PAUSE = 1800.0
"""Seconds until the next try when a day's limit is used up and the provider does not say until when."""

LONGEST_DAY = 26 * 3600.0
"""How long to go on trying when a daily limit is used up: by then it has been reset."""

LOCK_SECONDS = 900.0
"""How long somebody else may take to make the same thing: a request and the lag of lists, a few times over."""

LOCKS = 256
"""Number of lock files. Keys are hashed onto them, so unrelated keys may by chance wait for each other."""


@dataclass(slots=True)
class Once(ABC, Generic[T]):
    """Makes what costs money at one account: jobs, or batches, which know how they are looked for.

    Attributes:
        name: The account's name.
        account: Its settings.
        provider: Its adapter.
        session: The connection.
        journal: Where records are kept.
        patience: How long lists may lag.
    """

    name: str
    account: Account
    provider: Provider
    session: Session
    journal: Journal
    patience: Patience = PATIENT

    @abstractmethod
    async def look(self, key: str) -> T | None:
        """Look once for what carries a key at the provider, and leaves something or still may."""

    @abstractmethod
    def identity(self, made: T) -> str:
        """Return the provider's name for it."""

    def park(self, seconds: float) -> None:
        """Note for how long nothing may be made, when a day's limit is used up."""

    async def made(self, key: str, upload: Callable[[], Awaitable[str]], send: Callable[[str], Awaitable[T]]) -> T:
        """Return the job or batch of a key: the one that exists at the provider, else one that is sent now.

        Args:
            key: Goes with the request, and finds it again at the provider.
            upload: Uploads what the request needs, and returns its id; it costs nothing.
            send: Sends the request with that id, once.

        Raises:
            ProviderError: It was refused, or cannot be made.
        """
        if (found := await self.found(key, self._arrival(key))) is not None:
            return self._noted(key, found)
        file_id = await upload()
        attempt, deadline = 0, time.monotonic() + LONGEST_DAY
        while attempt < TRIES and time.monotonic() < deadline:
            try:
                return await self._made(key, file_id, send)
            except ThrottledError as error:  # nothing was done
                attempt += error.scope != "day"  # waiting for a daily limit is no try
                await asyncio.sleep(self._until_allowed(error, attempt))
            except (NoReplyError, UnavailableError):  # the next try looks again before it sends
                attempt += 1
                await asyncio.sleep(backoff(attempt))
        raise UnavailableError(f"the provider took nothing in {TRIES} tries, or {LONGEST_DAY / 3600:.0f} hours")

    async def found(self, key: str, arrival: float | None) -> T | None:
        """Look for what carries a key, once; or, where a request for it may have arrived, for as long as lists lag after that.

        `arrival` is when it may have, in seconds since the epoch.
        """
        while True:
            there = await repeated(lambda: self.look(key))
            if there is not None or arrival is None or time.time() > arrival + self.patience.lag:
                return there
            await asyncio.sleep(self.patience.look)

    async def _made(self, key: str, file_id: str, send: Callable[[str], Awaitable[T]]) -> T:
        """Send a request, unless somebody else has; when nobody knows whether it arrived, look for its work."""
        async with self._alone(key):
            if (found := await self.found(key, self._arrival(key))) is not None:
                return self._noted(key, found)
            record = self._fresh(key)
            self.journal.write(record)
            nothing = replace(record, state=JobState.FAILED.value)  # there is nothing to look for
            try:
                made = await send(file_id)
            except (NoReplyError, UnavailableError):
                if (found := await self.found(key, time.time())) is not None:
                    return self._noted(key, found)
                self.journal.write(nothing)
                raise
            except ProviderError:  # refused, or sent too fast
                self.journal.write(nothing)
                raise
            self._noted(key, made)
            await self._listed(key)
            return made

    def _arrival(self, key: str) -> float | None:
        """Return when a request for a key may last have arrived, in seconds since the epoch; None where none can have."""
        record = self.journal.read(key)
        return None if record is None else record.latest_arrival(self.account.timeout)

    def _fresh(self, key: str) -> JobRecord:
        """Return the intent to make something; what earlier jobs of the key cost is not forgotten."""
        before = self.journal.read(key)
        unbooked = 0 if before is None else before.unbooked_tokens
        return JobRecord(key, self.name, self.account.provider, time.time(), unbooked_tokens=unbooked)

    def _noted(self, key: str, made: T) -> T:
        """Write down the id of what carries a key; without an intent here, somebody else has made it."""
        record, name = self.journal.read(key), self.identity(made)
        if record is None or record.latest_arrival(self.account.timeout) is None:
            if record is None or record.job_id != name:
                self.journal.write(replace(self._fresh(key), job_id=name, is_adopted=True))
        else:
            self.journal.write(replace(record, job_id=name))
        return made

    def _until_allowed(self, error: ThrottledError, attempt: int) -> float:
        """Return the seconds until the next try, and let others wait as long where the limit is a day's."""
        if error.scope != "day":
            return backoff(attempt, error.seconds)
        seconds = error.seconds or DAY_PAUSE
        self.park(seconds)
        return seconds

    async def _listed(self, key: str) -> None:
        """Wait until whoever looks next will find it; it is made, whether or not the list can be had."""
        try:
            await self.found(key, time.time())
        except ProviderError:
            return

    @asynccontextmanager
    async def _alone(self, key: str) -> AsyncIterator[None]:
        """Let nobody else on this machine make the same thing meanwhile; the system lets go when a process dies.

        Raises:
            UnavailableError: Somebody else takes too long, or there is no place for a lock.
        """
        place = (self.account.base_url or self.provider.base_url or "").rstrip("/")  # however it is written
        digest = hashlib.sha256(f"{self.account.provider} {place} {key}".encode()).digest()
        try:
            path = cache_folder() / f"{digest[0] % LOCKS}.lock"
            lock = AsyncFileLock(path, timeout=LOCK_SECONDS, mode=SEALED, thread_local=False)
            await lock.acquire()
        except Timeout as error:
            raise UnavailableError(f"somebody else on this machine holds the lock of {key}: {error}") from error
        except OSError as error:
            raise UnavailableError(f"no lock could be had for {key}: {error}") from error
        try:
            yield
        finally:
            await lock.release()
