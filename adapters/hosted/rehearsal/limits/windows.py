"""How a limit is held over time: three ways, as pure arithmetic. The time is an argument, in seconds of any clock.

A request larger than what a bucket or a quantum can hold at once passes when that is full, and is then paid back before
anything else passes; else small bursts would shut out large requests for ever. One larger than the limit itself never
passes.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Literal, Protocol

EPSILON = 1e-9
"""What floating-point sums may be off by."""


@dataclass(slots=True)
class Taken:
    """What was taken, when: it is handed back to settle it."""

    at: float
    amount: float


class Window(Protocol):
    """A limit of so much a period."""

    @property
    def limit(self) -> int:
        """How much a period."""
        ...

    def wait(self, now: float, amount: float) -> float:
        """Return in how many seconds so much could be taken: 0 for now, infinity for never."""
        ...

    def take(self, now: float, amount: float) -> Taken:
        """Take so much; the caller has seen that it fits."""
        ...

    def fail(self, now: float) -> None:
        """Count 1 that was refused. Only the sliding window lets such ones pile up: it forgets them by itself."""
        ...

    def settle(self, now: float, taken: Taken, amount: float) -> None:
        """Replace what was taken by what was used, as far as the window still remembers it."""
        ...

    def left(self, now: float) -> int:
        """Return how much could be taken now, >= 0."""
        ...

    def reset(self, now: float) -> float:
        """Return in how many seconds all of it will be there again."""
        ...


class Bucket:
    """Refills steadily, and holds a burst.

    Args:
        limit: How much a period, >= 1.
        period: Seconds, > 0.
        burst: How much it holds, in seconds of refill; it holds 1 at least.
    """

    def __init__(self, limit: int, period: float, burst: float) -> None:
        """Start full."""
        self.limit = limit
        self._rate = limit / period
        self._holds = max(1.0, self._rate * min(burst, period))
        self._level, self._at = self._holds, -math.inf

    def wait(self, now: float, amount: float) -> float:
        """Return in how many seconds so much could be taken."""
        if amount > self.limit:
            return math.inf
        lacking = min(amount, self._holds) - self._filled(now)
        return lacking / self._rate if lacking > EPSILON else 0.0

    def take(self, now: float, amount: float) -> Taken:
        """Take so much."""
        self._level = self._filled(now) - amount
        return Taken(now, amount)

    def fail(self, now: float) -> None:
        """Take 1, or what is there."""
        self._level = min(self._filled(now), max(0.0, self._level - 1))

    def settle(self, now: float, taken: Taken, amount: float) -> None:
        """Give back what was not used."""
        self._level = min(self._holds, self._filled(now) + taken.amount - amount)
        taken.amount = amount

    def left(self, now: float) -> int:
        """Return what is in it."""
        return max(0, math.floor(self._filled(now) + EPSILON))

    def reset(self, now: float) -> float:
        """Return when it will be full."""
        return (self._holds - self._filled(now)) / self._rate

    def _filled(self, now: float) -> float:
        if now > self._at:
            grown = self._level + (now - self._at) * self._rate if self._at > -math.inf else self._holds
            self._level, self._at = min(self._holds, grown), now
        return self._level


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
        """Return when enough of what was taken will have left the period."""
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
        """Take so much."""
        self._forget(now)
        taken = Taken(now, amount)
        self._log.append(taken)
        self._sum += amount
        return taken

    def fail(self, now: float) -> None:
        """Take 1, fit or not."""
        self.take(now, 1)

    def settle(self, now: float, taken: Taken, amount: float) -> None:
        """Correct what was noted, if it is still in the period."""
        self._forget(now)
        if taken.at + self._period > now:
            self._sum += amount - taken.amount
        taken.amount = amount

    def left(self, now: float) -> int:
        """Return what the last period has left over."""
        self._forget(now)
        return max(0, math.floor(self.limit - self._sum + EPSILON))

    def reset(self, now: float) -> float:
        """Return when the last that was taken will have left the period."""
        self._forget(now)
        return self._log[-1].at + self._period - now if self._log else 0.0

    def _forget(self, now: float) -> None:
        while self._log and self._log[0].at + self._period <= now:
            self._sum -= self._log.popleft().amount
        if not self._log:
            self._sum = 0.0


class Quantised:
    """Holds the limit's share in every quantum, counted from 0 of the clock.

    Args:
        limit: How much a period, >= 1.
        period: Seconds, > 0.
        quantum: Seconds, > 0, at most a period.
    """

    def __init__(self, limit: int, period: float, quantum: float) -> None:
        """Start at an empty quantum."""
        self.limit = limit
        self._quantum = min(quantum, period)
        self._share = limit * self._quantum / period
        self._used, self._index = 0.0, 0

    def wait(self, now: float, amount: float) -> float:
        """Return when a quantum begins into which it fits."""
        if amount > self.limit:
            return math.inf
        self._turn(now)
        excess = self._used - max(0.0, self._share - amount)
        if excess <= EPSILON:
            return 0.0
        quanta = math.ceil(excess / self._share - EPSILON)
        return max(EPSILON, (self._index + quanta) * self._quantum - now)

    def take(self, now: float, amount: float) -> Taken:
        """Take so much."""
        self._turn(now)
        self._used += amount
        return Taken(now, amount)

    def fail(self, now: float) -> None:
        """Take 1, or what this quantum has left over."""
        self._turn(now)
        self._used = max(self._used, min(self._share, self._used + 1))

    def settle(self, now: float, taken: Taken, amount: float) -> None:
        """Correct the count, if its quantum still runs."""
        self._turn(now)
        if self._index_at(taken.at) == self._index:
            self._used = max(0.0, self._used + amount - taken.amount)
        taken.amount = amount

    def left(self, now: float) -> int:
        """Return what this quantum has left over."""
        self._turn(now)
        return max(0, math.floor(self._share - self._used + EPSILON))

    def reset(self, now: float) -> float:
        """Return when nothing will be used."""
        self._turn(now)
        quanta = math.ceil(self._used / self._share - EPSILON)
        return (self._index + quanta) * self._quantum - now if quanta else 0.0

    def _index_at(self, now: float) -> int:
        return math.floor(now / self._quantum + EPSILON)

    def _turn(self, now: float) -> None:
        index = self._index_at(now)
        if index > self._index:
            self._used = max(0.0, self._used - (index - self._index) * self._share)
            self._index = index


def window(
    policy: Literal["bucket", "sliding", "quantised"], limit: int, period: float, *, burst: float, quantum: float
) -> Window:
    """Return a window that holds a limit in one of the three ways.

    Args:
        policy: Which way.
        limit: How much a period, >= 1.
        period: Seconds, > 0.
        burst: For a bucket: how much it holds, in seconds of refill.
        quantum: For quanta: how long one is, seconds.
    """
    if policy == "bucket":
        return Bucket(limit, period, burst)
    return Sliding(limit, period) if policy == "sliding" else Quantised(limit, period, quantum)
