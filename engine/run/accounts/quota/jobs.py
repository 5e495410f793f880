"""Slots for fine-tuning jobs: how many run at a time, and how many were started in the last day. Pure; time is an argument."""

from __future__ import annotations

import bisect

from engine.run.accounts.quota.rate import DAY, NEVER


class JobSlots:
    """What is free.

    Args:
        concurrent: Jobs at a time, or None for any number.
        daily: Jobs started in any 24 hours, or None for any number.

    Attributes:
        running: Jobs that hold a slot.
    """

    def __init__(self, concurrent: int | None, daily: int | None) -> None:
        """Start with all of them free."""
        self.running = 0
        self._concurrent = concurrent
        self._daily = daily
        self._started: list[float] = []
        self._parked_until = -NEVER

    def wait(self, now: float) -> float:
        """Return in how many seconds a job may be started; 0 means now, infinity when another one ends."""
        if self._concurrent is not None and self.running >= self._concurrent:
            return NEVER
        del self._started[: bisect.bisect_right(self._started, now - DAY)]
        wait = max(0.0, self._parked_until - now)
        if self._daily is not None and len(self._started) >= self._daily:
            wait = max(wait, self._started[-self._daily] + DAY - now)
        return wait

    def take(self, started: float) -> None:
        """Count a job that is started, or that was started before, on the same clock, and still runs."""
        self.running += 1
        bisect.insort(self._started, started)

    def give(self) -> None:
        """Note that a job has ended."""
        self.running -= 1

    def park(self, until: float) -> None:
        """Start none before then."""
        self._parked_until = max(self._parked_until, until)
