"""How a limit is held over time, as pure arithmetic. The time is an argument, in seconds of any clock.

A request larger than what a bucket can hold at once passes when that is full, and is then paid back before anything else
passes; else small bursts would shut out large requests for ever. One larger than the limit itself never passes.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Literal, TypeAlias

EPSILON = 1e-9
"""What floating-point sums may be off by."""


@dataclass(slots=True)
class Taken:
    """What was taken, when: it is handed back to settle it."""

    at: float
    amount: float


class Bucket:
    """Refills steadily, or once in a while, and holds a burst.

    Args:
        limit: How much a period, >= 1.
        period: Seconds, > 0.
        burst: How much it holds, in seconds of refill; it holds 1 at least.
        quantum: Seconds between refills, counted from 0 of the clock; 0 for a steady one.
    """

    def __init__(self, limit: int, period: float, burst: float, quantum: float = 0.0) -> None:
        """Start full."""
        self.limit = limit
        self._rate = limit / period
        self._holds = max(1.0, self._rate * min(burst, period))
        self._quantum = quantum
        self._level, self._at = self._holds, -math.inf

    def wait(self, now: float, amount: float) -> float:
        """Return in how many seconds so much could be taken: 0 for now, infinity for never."""
        if amount > self.limit:
            return math.inf
        return self._refilled_in(now, min(amount, self._holds) - self._filled(now))

    def take(self, now: float, amount: float) -> Taken:
        """Take so much; the caller has seen that it fits."""
        self._level = self._filled(now) - amount
        return Taken(now, amount)

    def fail(self, now: float) -> None:
        """Count 1 that was refused, or what is there: such ones do not pile up."""
        self._level = min(self._filled(now), max(0.0, self._level - 1))

    def settle(self, now: float, taken: Taken, amount: float) -> None:
        """Replace what was taken by what was used."""
        self._level = min(self._holds, self._filled(now) + taken.amount - amount)
        taken.amount = amount

    def left(self, now: float) -> int:
        """Return how much could be taken now, >= 0."""
        return max(0, math.floor(self._filled(now) + EPSILON))

    def reset(self, now: float) -> float:
        """Return in how many seconds it will be full."""
        return self._refilled_in(now, self._holds - self._filled(now))

    def _filled(self, now: float) -> float:
        at = self._last_refill(now)
        if at > self._at:
            grown = self._level + (at - self._at) * self._rate if self._at > -math.inf else self._holds
            self._level, self._at = min(self._holds, grown), at
        return self._level

    def _last_refill(self, now: float) -> float:
        return math.floor(now / self._quantum + EPSILON) * self._quantum if self._quantum else now

    def _refilled_in(self, now: float, lacking: float) -> float:
        """Return in how many seconds so much more will be in it."""
        if lacking <= EPSILON:
            return 0.0
        seconds = lacking / self._rate
        if not self._quantum:
            return seconds
        refills = math.ceil(seconds / self._quantum - EPSILON)
        return max(EPSILON, self._last_refill(now) + refills * self._quantum - now)


class Sliding:
    """Looks at the last period, whenever it is asked.

    Args:
        limit: How much a period, >= 1.
        period: Seconds, > 0.
    """

    def __init__(self, limit: int, period: float) -> None:
        """Start empty."""
        self.limit = limit
        self._period = period
        self._log: deque[Taken] = deque()
        self._sum = 0.0

    def wait(self, now: float, amount: float) -> float:
        """Return in how many seconds so much could be taken: 0 for now, infinity for never."""
        if amount > self.limit:
            return math.inf
        self._forget(now)
        excess = self._sum + amount - self.limit
        for taken in self._log:
            if excess <= EPSILON:
                break
            excess -= taken.amount
            if excess <= EPSILON:
                return taken.at + self._period - now
        return 0.0

    def take(self, now: float, amount: float) -> Taken:
        """Take so much; the caller has seen that it fits."""
        self._forget(now)
        taken = Taken(now, amount)
        self._log.append(taken)
        self._sum += amount
        return taken

    def fail(self, now: float) -> None:
        """Count 1 that was refused, fit or not: such ones pile up, and leave as all else does."""
        self.take(now, 1)

    def settle(self, now: float, taken: Taken, amount: float) -> None:
        """Replace what was taken by what was used, if it is still in the period."""
        self._forget(now)
        if taken.at + self._period > now:
            self._sum += amount - taken.amount
        taken.amount = amount

    def left(self, now: float) -> int:
        """Return how much could be taken now, >= 0."""
        self._forget(now)
        return max(0, math.floor(self.limit - self._sum + EPSILON))

    def reset(self, now: float) -> float:
        """Return in how many seconds the last that was taken will have left the period."""
        self._forget(now)
        return self._log[-1].at + self._period - now if self._log else 0.0

    def _forget(self, now: float) -> None:
        while self._log and self._log[0].at + self._period <= now:
            self._sum -= self._log.popleft().amount
        if not self._log:
            self._sum = 0.0


Window: TypeAlias = Bucket | Sliding
"""A limit of so much a period."""


def window(
    policy: Literal["bucket", "sliding", "quantised"], limit: int, period: float, *, burst: float, quantum: float
) -> Window:
    """Return a window that holds a limit in one of the three ways.

    Args:
        policy: Which way; `quantised` has the limit's share in every quantum.
        limit: How much a period, >= 1.
        period: Seconds, > 0.
        burst: For a bucket: how much it holds, in seconds of refill.
        quantum: For quanta: how long one is, seconds.
    """
    if policy == "sliding":
        return Sliding(limit, period)
    return Bucket(limit, period, quantum, quantum) if policy == "quantised" else Bucket(limit, period, burst)
