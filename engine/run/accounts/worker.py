"""The worker of one account: an event loop of its own, in which thousands of requests wait for their turn and their reply."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import as_completed
from typing import Any, TypeVar

from filelock import FileLock, Timeout

from engine import registry
from engine.domain.adapters import Kind
from engine.domain.errors import RunLockedError
from engine.domain.sweep import Account
from engine.plan.accounts import access_of
from engine.ports.account import HostedTuning, TuningRequest
from engine.ports.chat import ChatRequest, Completion
from engine.ports.provider import Access, Provider, Session
from engine.ports.provider_errors import ProviderError
from engine.run.accounts.batches import Batches
from engine.run.accounts.jobs import Jobs
from engine.run.accounts.journal import Journal
from engine.run.accounts.quota.broker import Broker
from engine.run.accounts.replies import ReplyLog, names
from engine.store.layout import SEALED, RunDirectory

T = TypeVar("T")

OUTLIVES_SECONDS = 60.0
"""Longer than a worker may outlive a driver that was killed; a Ray actor does so by two or three seconds, and could make a job
in them that its successor makes too."""


class AccountWorker:
    """One account, for the threads of this process. Implements `engine.ports.account.Account`."""

    def __init__(self, name: str, account: Account, run: RunDirectory, patience: float = OUTLIVES_SECONDS) -> None:
        """Wait `patience` seconds for another worker of this account and run directory to end, and connect; nothing is sent yet.

        Raises:
            DeniedError: The environment has no key.
            RunLockedError: Another process still has this account in this run directory.
        """
        self._lock = _alone(name, run, patience)
        access = access_of(name, account)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"account {name}", daemon=True)
        self._thread.start()
        try:
            provider = registry.adapter(Kind.PROVIDER, account.provider)
            self._session = self._await(_connected(provider, access))
        except BaseException:
            self._stop()
            raise
        self._run = run
        self._broker = Broker(self._session, account.quota, group=provider.quota_group)
        self._jobs = Jobs(name, account, provider, self._session, Journal(run.jobs), broker=self._broker)
        self._batches = Batches(name, account, provider, self._session, Journal(run.batches))
        self._is_batched = account.batch

    def complete_all(
        self, requests: Mapping[str, Sequence[ChatRequest]], *, urgent: bool
    ) -> Iterator[tuple[str, Sequence[Completion | ProviderError]]]:
        """Send all requests, and yield (stage key, replies in order) of each stage as soon as it is done."""
        return self._each({key: self._completions(key, own, urgent=urgent) for key, own in requests.items()})

    def fine_tune(self, requests: Sequence[TuningRequest]) -> Iterator[tuple[str, HostedTuning | ProviderError]]:
        """Run jobs, all at once within the quota, and yield (key, what came of it) of each as it ends."""
        return self._each({request.key: self._tuned(request) for request in requests})

    def begun(self, stage_key: str) -> bool:
        """Tell whether replies of a stage, which a run before this one bought, wait to be used."""
        return bool(ReplyLog(self._run, stage_key).bought or self._batches.unread(stage_key))

    async def _completions(
        self, stage_key: str, requests: Sequence[ChatRequest], *, urgent: bool
    ) -> Sequence[Completion | ProviderError]:
        named = names(requests)
        with ReplyLog(self._run, stage_key).open() as log:
            if self._is_batched:
                answers = await self._batches.complete_all(stage_key, named, log)
                return [answers[name] for name in named]
            bought = await self._batches.begun(stage_key, named, log)
            self._broker.expect(stage_key, len(named) - len(bought))

            async def reply(name: str, request: ChatRequest) -> Completion | ProviderError:
                if name in bought:
                    return bought[name]
                try:
                    completion = await self._broker.complete(request, flow=stage_key, urgent=urgent)
                except ProviderError as error:
                    return error
                log.write(name, request, completion)
                return completion

            tasks = [asyncio.create_task(reply(name, request)) for name, request in named.items()]
            try:
                return await asyncio.gather(*tasks)
            except Exception:  # such as a full disk: what cannot be kept is not bought
                for task in tasks:
                    task.cancel()
                raise

    async def _tuned(self, request: TuningRequest) -> HostedTuning | ProviderError:
        try:
            return await self._jobs.run(request)
        except ProviderError as error:
            return error

    def _each(self, works: Mapping[str, Coroutine[Any, Any, T]]) -> Iterator[tuple[str, T]]:
        """Do everything at once in the loop, and yield what comes of each as it ends; raises what the first raises."""
        keys = {asyncio.run_coroutine_threadsafe(work, self._loop): key for key, work in works.items()}
        for ended in as_completed(keys):
            yield keys[ended], ended.result()

    def _await(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def close(self) -> None:
        """Send nothing more, and drop the connections; paid jobs go on at the provider, and are found again."""
        self._await(self._ended())
        self._stop()

    async def _ended(self) -> None:
        under_way = asyncio.all_tasks() - {asyncio.current_task()}
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)
        await self._session.close()

    def _stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._lock.release()


def _alone(name: str, run: RunDirectory, patience: float) -> FileLock:
    """Wait until no other process has an account in a run directory; the system lets go when that process dies."""
    run.jobs.mkdir(parents=True, exist_ok=True, mode=0o700)
    lock = FileLock(run.jobs / f".{name}.lock", mode=SEALED, thread_local=False)
    try:
        lock.acquire(timeout=patience)
    except Timeout as error:
        what = f"another process still works on the account {name}"
        raise RunLockedError(what, where=str(run.root), todo="wait for it to end, and run the same again") from error
    return lock


async def _connected(provider: Provider, access: Access) -> Session:
    """Connect inside the loop: connections belong to it."""
    return provider.connect(access)
