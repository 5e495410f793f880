"""A process that dies after an effect of its own choice, at a provider or on the disk, and whoever goes on after it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast

from engine import registry
from engine.domain.adapters import Kind
from engine.domain.sweep import Account
from engine.ports.account import TuningRequest
from engine.ports.chat import ChatRequest, Completion
from engine.ports.provider import Provider, Session
from engine.ports.provider_errors import ProviderError
from engine.run.accounts.backoff import Patience
from engine.run.accounts.batches import Batches
from engine.run.accounts.jobs import Jobs
from engine.run.accounts.journal import JobRecord, Journal
from engine.run.accounts.leftover import left_behind
from engine.run.accounts.quota.broker import Broker
from engine.run.accounts.replies import ReplyLog, names
from engine.store.layout import RunDirectory

EFFECTS = ("upload", "create_job", "cancel_job", "upload_batch", "submit_batch", "cancel_batch")


class Crash(BaseException):
    """The process is gone."""


@dataclass
class Death:
    """Lets the process die after one of its effects.

    Attributes:
        after: How many effects it has; None where it lives.
        at: An effect after which it dies, and the how-manieth of that name; None where it lives.
        seen: Its effects so far.
    """

    after: int | None = None
    at: tuple[str, int] | None = None
    seen: list[str] = field(default_factory=list)

    def come(self, effect: str) -> None:
        self.seen.append(effect)
        if self.after is not None and len(self.seen) >= self.after:
            raise Crash(effect)
        if self.at == (effect, self.seen.count(effect)):
            raise Crash(effect)


@dataclass
class Mortal:
    """A session whose process may die when the provider has done what it was asked, and before it hears of it."""

    session: Any
    death: Death

    def __getattr__(self, name: str) -> Any:
        call = getattr(self.session, name)
        if name not in EFFECTS:
            return call

        async def done(*arguments: object) -> object:
            found = await call(*arguments)
            self.death.come(name)
            return found

        return done


class MortalJournal(Journal):
    """A journal whose process may die when a record is on the disk."""

    death: Death

    def write(self, record: JobRecord) -> None:
        super().write(record)
        self.death.come("record")


class MortalLog(ReplyLog):
    """A log whose process may die when a reply is in it."""

    death: Death

    def write(self, name: str, request: ChatRequest, completion: Completion) -> None:
        super().write(name, request, completion)
        self.death.come("reply")


@dataclass
class Process:
    """One process after the other on one run directory: it tunes, commits what that cost, and asks in a batch.

    Attributes:
        root: The run directory.
        connect: Connects to the account.
        request: What is tuned.
        asks: What is asked.
        ask_key: The key of the stage that asks.
        account: The account's settings.
        patience: How long lists may lag.
        ledger: Tokens trained and when, by attempt, as the store has them.
        is_tuned: Whether the store has the tune stage as done.
        answers: What the batch said, in the order of `asks`, once it was all there.
    """

    root: Path
    connect: Callable[[], Session]
    request: TuningRequest
    asks: Sequence[ChatRequest]
    ask_key: str
    account: Account
    patience: Patience
    ledger: list[tuple[int, float]] = field(default_factory=list)
    is_tuned: bool = False
    answers: list[str] = field(default_factory=list)

    def live(self, after: int | None = None, at: tuple[str, int] | None = None) -> list[str]:
        """Run a process, to its end or until it dies, after so many effects or at one of a name; return its effects."""
        death, journal = Death(after, at), Journal(RunDirectory(self.root).jobs)
        trained = max((at for _, at in self.ledger), default=0.0)
        for job in journal.records():  # as `engine.run.drive.adopt` does when a run begins
            if not job.is_booked and trained > job.intended_at:
                journal.book(job.key)
        with suppress(Crash, ProviderError):  # the next one goes on
            asyncio.run(self._connected(partial(self._work, death), death))
        return death.seen

    def cancel(self) -> None:
        """Do what `--cancel-jobs` does, as far as the provider lets it."""
        with suppress(ProviderError):
            asyncio.run(self._connected(self._cancel, Death()))

    async def _connected(self, work: Callable[[Jobs, Batches], Awaitable[None]], death: Death) -> None:
        session = self.connect()
        try:
            await work(self._jobs(session, death), self._batches(session, death))
        finally:
            await session.close()

    async def _work(self, death: Death, jobs: Jobs, batches: Batches) -> None:
        if not self.is_tuned:
            await self._tune(death, jobs)
        named = names(self.asks)
        log = MortalLog(RunDirectory(self.root), self.ask_key)
        log.death = death
        with log.open():
            found = await batches.complete_all(self.ask_key, named, log)
        replies = [reply for reply in (found[name] for name in named) if isinstance(reply, Completion)]
        if len(replies) == len(named):
            self.answers = [reply.choices[0].text for reply in replies]

    async def _tune(self, death: Death, jobs: Jobs) -> None:
        try:
            used = (await jobs.run(self.request)).usage
        except ProviderError as error:
            if error.used is not None and error.used.tokens:
                self._commit(error.used.train_tokens, death, jobs)
            raise
        self.is_tuned = True
        self._commit(used.train_tokens, death, jobs)

    def _commit(self, tokens: int, death: Death, jobs: Jobs) -> None:
        """As the driver does: first the store, then the note."""
        self.ledger.append((tokens, time.time()))
        death.come("commit")
        jobs.journal.book(self.request.key)

    @property
    def booked(self) -> int:
        """Tokens trained that are in the ledger."""
        return sum(tokens for tokens, _ in self.ledger)

    async def _cancel(self, jobs: Jobs, batches: Batches) -> None:
        left = left_behind(RunDirectory(self.root))
        for record in left.jobs:
            await jobs.cancel(record)
        for record in left.batches:
            await batches.cancel(record)

    def _jobs(self, session: Session, death: Death) -> Jobs:
        mortal, journal = cast("Session", Mortal(session, death)), MortalJournal(RunDirectory(self.root).jobs)
        journal.death = death
        broker = Broker(mortal, self.account.quota)
        return Jobs("ours", self.account, self._provider, mortal, journal, self.patience, broker=broker)

    def _batches(self, session: Session, death: Death) -> Batches:
        mortal, journal = cast("Session", Mortal(session, death)), MortalJournal(RunDirectory(self.root).batches)
        journal.death = death
        return Batches("ours", self.account, self._provider, mortal, journal, self.patience)

    @property
    def _provider(self) -> Provider:
        found: Provider = registry.adapter(Kind.PROVIDER, self.account.provider)
        return found
