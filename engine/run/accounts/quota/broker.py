"""The one owner of an account's quota, for all cells, judges and generators of that account, in one event loop.

It sends a request when its queue lets it through, repeats what the provider did not do, and hands on what it did, with what may be
billed besides. Models that share limits share a queue. Every reply and every error goes to the queue's pure `Pool`; here is only
the sending.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

from engine.domain.cost import Usage
from engine.domain.quota import Quota
from engine.ports.chat import ChatRequest, Completion
from engine.ports.provider import Session
from engine.ports.provider_errors import ExhaustedError, NoReplyError, ProviderError, ThrottledError, UnavailableError
from engine.run.accounts.quota.fair_queue import Ticket
from engine.run.accounts.quota.jobs import JobSlots
from engine.run.accounts.quota.pool import estimate, longest_answer, prompt_estimate
from engine.run.accounts.quota.rate import NEVER
from engine.run.accounts.quota.request_queue import RequestQueue


class Broker:
    """An account's quota, and whoever waits for it.

    Args:
        session: The account, connected. Its requests are never repeated by itself.
        quota: The limits that are known.
        clock: Seconds, monotonic; those of the event loop.
        group: Returns what all models have in common that share limits; without it, each has its own.
    """

    def __init__(
        self,
        session: Session,
        quota: Quota,
        *,
        clock: Callable[[], float] = time.monotonic,
        group: Callable[[str], str] = str,
    ) -> None:
        """Send nothing yet."""
        self._session = session
        self._quota, self._group, self._clock = quota, group, clock
        self._queues: dict[str, RequestQueue] = {}
        self._expected: dict[str, int] = {}
        self._ended: ExhaustedError | None = None
        self._jobs = JobSlots(quota.concurrent_jobs, quota.jobs_per_day)
        self._job_ended = asyncio.Event()

    @property
    def waiting(self) -> int:
        """Requests that wait to be sent."""
        return sum(queue.pool.waiting for queue in self._queues.values())

    @property
    def in_flight(self) -> int:
        """Requests that are sent and not answered."""
        return sum(queue.pool.in_flight for queue in self._queues.values())

    def expect(self, flow: str, number: int) -> None:
        """Say that a flow will have so many more requests, so that it goes first when it is nearly finished."""
        if number > 0:
            self._expected[flow] = self._expected.get(flow, 0) + number

    async def complete(self, request: ChatRequest, *, flow: str, urgent: bool = False) -> Completion:
        """Ask a model once the quota allows it, again and again where the provider did not do it.

        A send whose reply never came may be billed. How much that may be, the reply of a later send says in its `possibly_billed`, or the
        error in its `used`. There the prompt is estimated as `prompt_estimate` does, because no reply says its length.

        A flow is the cell's stage that asks: flows share the quota fairly. Urgent ones go before others; all requests of a flow agree.

        Raises:
            ProviderError: It was refused (`BlockedError`, `RejectedError`, `DeniedError`), the account has no money left (`ExhaustedError`), the
                server failed or did not answer too often (`UnavailableError`, `NoReplyError`), or it is larger than the limit itself
                (`ThrottledError`).
        """
        if self._ended is not None:
            raise self._refusal()
        queue = self._queue(request, flow)
        ticket = Ticket(flow, urgent, estimate(request, output_settles=self._quota.output_settles))
        queue.pool.fair_queue.put(ticket)
        try:
            while await queue.passed(ticket):
                completion = await self._send(queue, ticket, request)
                if completion is not None:
                    lost = completion.possibly_billed + _possibly_billed(ticket, request, completion.prompt_tokens)
                    return replace(completion, possibly_billed=lost) if ticket.no_reply else completion
            raise self._refusal()
        except ProviderError as error:
            if ticket.no_reply:
                error.used = (error.used or Usage()) + _possibly_billed(ticket, request, prompt_estimate(request))
            raise
        finally:
            queue.pump()  # not between two sends: this request waits again then, and has no turn before it passes

    @asynccontextmanager
    async def job_slot(self, age: float | None = None) -> AsyncIterator[None]:
        """Hold a slot for a fine-tuning job, from before it is made until it has ended.

        One that was made `age` seconds ago runs already: it waits for nothing, but counts.

        Raises:
            ExhaustedError: The account has no money left.
        """
        while age is None and (wait := self._jobs.wait(self._clock())) > 0 and self._ended is None:
            self._job_ended.clear()
            await self._job_wait(wait)
        if self._ended is not None:
            raise self._refusal()
        self._jobs.take(self._clock() - (age or 0.0))
        try:
            yield
        finally:
            self._jobs.give()
            self._job_ended.set()

    def park_jobs(self, seconds: float) -> None:
        """Start no job for so long: the provider said that the day's are used up."""
        self._jobs.park(self._clock() + seconds)

    async def _send(self, queue: RequestQueue, ticket: Ticket, request: ChatRequest) -> Completion | None:
        """Send a request, and return the reply, or None when it has to be sent again."""
        try:
            completion = await self._session.complete(request)
        except (ThrottledError, UnavailableError, NoReplyError) as error:
            if not self._repeats(queue, ticket, error):
                raise
            return None
        except BaseException as error:  # cancelled, or handed on
            queue.pool.handed_on(ticket)
            if isinstance(error, ExhaustedError):
                self._end(error)
            raise
        queue.pool.answered(
            ticket, completion.rate_limits, completion.prompt_tokens + completion.generated_tokens, self._clock()
        )
        return completion

    def _repeats(
        self, queue: RequestQueue, ticket: Ticket, error: ThrottledError | UnavailableError | NoReplyError
    ) -> bool:
        """Note what was sent in vain, and return whether it is sent again."""
        now = self._clock()
        if isinstance(error, ThrottledError):
            return queue.pool.throttled(ticket, error, now)
        if isinstance(error, UnavailableError):
            return queue.pool.failed(ticket, error, now)
        return queue.pool.no_reply(ticket, now)

    def _end(self, why: ExhaustedError) -> None:
        """Let nobody through any more."""
        if self._ended is None:
            self._ended = ExhaustedError(*why.args)
            self._job_ended.set()
            for queue in self._queues.values():
                queue.close()

    def _queue(self, request: ChatRequest, flow: str) -> RequestQueue:
        """Return where this model's requests wait."""
        group = self._group(request.model)
        queue = self._queues.get(group)
        if queue is None:
            queue = self._queues[group] = RequestQueue(self._quota, self._clock)
        if flow in self._expected:
            queue.pool.fair_queue.expect(flow, self._expected.pop(flow))
        return queue

    def _refusal(self) -> ExhaustedError:
        """Return why nothing is sent any more, as a new exception each time: tracebacks grow on shared ones."""
        return ExhaustedError(*(() if self._ended is None else self._ended.args))

    async def _job_wait(self, seconds: float) -> None:
        """Wait until a job has ended, or for so long."""
        if seconds == NEVER:
            await self._job_ended.wait()
            return
        rings = asyncio.ensure_future(asyncio.sleep(seconds))
        ends = asyncio.ensure_future(self._job_ended.wait())
        try:
            await asyncio.wait({rings, ends}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            rings.cancel()
            ends.cancel()


def _possibly_billed(ticket: Ticket, request: ChatRequest, prompt_tokens: int) -> Usage:
    """Return what the sends of a request whose reply never came may be billed for, at most."""
    times = ticket.no_reply
    return Usage(
        possibly_billed_prompt_tokens=times * prompt_tokens,
        possibly_billed_generated_tokens=times * longest_answer(request),
    )
