"""Where requests wait for their turn: a `Pool` with a clock, and a timer for when to look again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from engine.domain.quota import Quota
from engine.run.accounts.quota.fair_queue import Ticket
from engine.run.accounts.quota.pool import Pool
from engine.run.accounts.quota.rate import NEVER

STIR_S = 0.001
"""A timer that would ring this much earlier than the one that is set is not worth setting."""


class RequestQueue:
    """Lets requests through as fast as one quota allows. The clock is that of the event loop, in seconds.

    Attributes:
        pool: The state of the quota. Who changes it by a reply or an error calls `pump` then.
    """

    def __init__(self, quota: Quota, clock: Callable[[], float]) -> None:
        """Let nobody wait yet."""
        self.pool = Pool(quota)
        self._clock = clock
        self._turns: dict[Ticket, asyncio.Future[bool]] = {}
        self._timer: asyncio.Task[None] | None = None
        self._rings_at = NEVER
        self._closed = False

    async def passed(self, ticket: Ticket) -> bool:
        """Wait until a request that is in the pool may be sent; False when the queue was closed instead."""
        if self._closed:
            self.pool.given_up(ticket)
            return False
        turn: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._turns[ticket] = turn
        self.pump()
        if turn.done():
            return turn.result()
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                if self._turns.pop(ticket, None) is not None:
                    self.pool.given_up(ticket)
            elif turn.result():  # its turn came in the same moment
                self.pool.handed_on(ticket)
            self.pump()
            raise

    def pump(self) -> None:
        """Let everybody through who may pass now, and set the timer for the next."""
        if self._closed:
            return
        now = self._clock()
        while (ticket := self.pool.next(now)) is not None:
            turn = self._turns.pop(ticket, None)
            if turn is None or turn.done():  # whoever waited has gone
                self.pool.handed_on(ticket)
            else:
                turn.set_result(True)
        if self.pool.waiting:
            self._set(now, self.pool.wait(now))

    def close(self) -> None:
        """Send everybody away who waits."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        for ticket, turn in self._turns.items():
            self.pool.given_up(ticket)
            if not turn.done():
                turn.set_result(False)
        self._turns.clear()

    def _set(self, now: float, seconds: float) -> None:
        if now + seconds >= self._rings_at - STIR_S:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._rings_at = now + seconds
        self._timer = asyncio.get_running_loop().create_task(self._ring(seconds))

    async def _ring(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        self._rings_at, self._timer = NEVER, None
        self.pump()
