"""One limit over time (requests or tokens, a minute or a day): when may how much be sent. Pure; the time is an argument.

Two rules hold at once. The *pace*: what is sent is paid for at the limit's own speed, and the next waits until the debt is
paid; that is kind to servers that refill a bucket. The *window*: never more than the server's capacity within the time in
which it lets that much through; that is what servers with a sliding window, or with a limit in quanta of a second, count.
How large the capacity is, the replies' headers tell. A little slack in time allows for latency; each 429
widens it, and it narrows again by itself.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

from engine.ports.chat import RateLimit
from engine.run.accounts.quota.guess import Guess

MINUTE = 60.0
DAY = 86400.0

BURST_S = 4.0
"""After idling, this many seconds' worth may go at once; the server's own capacity where that is less."""

WINDOWS_S = (1.0, 2.0, 5.0, 10.0, 15.0, 20.0, 30.0, MINUTE)
"""People choose round numbers: the window is the next one that holds what the server was seen to have left at its best."""

SEEN = 0.98
"""What is counted in whole numbers is a little more or less than that."""

SLACK = 0.008
LEAST_SLACK_S = 0.005
"""Slack at first: this share of the window, and this many seconds."""

CAUTIOUS = 1.4
MOST_CAUTION = 5
"""Each 429 widens the slack by this factor, so many times at most: to 4 % of the window."""

CALM_S = 60.0
"""Without a 429 for so long, one step of caution is given up."""

DOUBT = 0.95
GROWTH = 0.01
"""Where no header tells a limit that a person wrote: the share of it that is kept after a 429, and what it gains each second."""

GUESSED_BURST_S = 0.25
"""So much may go at once where a limit is guessed."""

LEAP = 2.0
"""A guessed limit that was not used up for long is not thought to be more than this times what was sent of late."""

RAMP = 0.5
RAMP_GROWTH = 0.25 / 900
"""After `slow_down`: the same. Half of the halved rate each 15 minutes is what OpenAI lets grow (rate limit guide, 2026)."""

LEAST_SHARE = 0.1
"""However often a server says 429, no less than this share is left, and it grows: waits that follow from a rate that has
collapsed have been seen to last for days."""

GRAINS = 600
"""A window's memory is this fine, and so never longer than this."""

NEVER = math.inf


@dataclass(slots=True, eq=False)
class Grain:
    """What was sent within a moment: since when, and how much."""

    since: float
    amount: float


class Rate:
    """One limit.

    Args:
        limit: How much a period, or None when it is not known.
        period: Seconds, > 0.
        least: What is never guessed to be too much for a period.

    Attributes:
        period: The same.
        paced: Whether sends are spread over the period. A day's limit is not: it is counted only.
    """

    def __init__(self, limit: float | None, period: float = MINUTE, least: float = 1.0) -> None:
        """Owe nothing, and have nothing saved up."""
        self.period = period
        self.paced = period <= MINUTE
        self._written, self._least = limit, least
        self._limit = limit
        self._in_headers = False  # a header told a limit
        self._guess: Guess | None = None  # where nobody did, once the server has said 429
        self._window = period
        self._burst = BURST_S
        self._capacity = 0.0  # the most that the server was seen to have, in its own units
        self._caution, self._cautious_since = 0, -NEVER
        self._share, self._growth, self._share_since = 1.0, 0.0, 0.0
        self._due = -NEVER  # when all that was sent is paid for
        self._log: deque[Grain] = deque()
        self._sum = 0.0

    @property
    def known(self) -> bool:
        """Whether there is a limit to keep."""
        return self._limit is not None or self._guess is not None

    def allows(self, amount: float) -> bool:
        """Tell whether so much can ever be sent at once, as far as is known."""
        return self._limit is None or amount <= self._limit

    def per_second(self, now: float) -> float:
        """Return how much is sent each second when there is always something to send."""
        if self._guess is not None:
            self._forget(now)
            most = LEAP * max(self._guess.aim, self._sum / self._window)
            return min(most, self._guess.per_second(now)) * self._shared(now)
        return NEVER if self._limit is None else self._limit / self.period * self._shared(now)

    def wait(self, amount: float, now: float) -> float:
        """Return in how many seconds so much may be sent; 0 means now."""
        if not self.known:
            return 0.0
        window = self._window_wait(amount, now)
        return max(window, self._due - now) if self.paced else window

    def beside(self, amount: float, now: float) -> float:
        """Return how much may go before `amount` does without delaying it: what is left over once that fits."""
        if self._limit is None:
            return NEVER
        self._forget(now)
        room = self._holds(now) - self._sum - amount
        for grain in self._log:
            if room >= 0:
                break
            room += grain.amount
        return max(0.0, room)

    def room(self, now: float) -> float:
        """Return how much fits into the window now."""
        self._forget(now)
        return self._holds(now) - self._sum

    def stirs(self, now: float) -> float:
        """Return in how many seconds more may fit than now; infinity where time alone makes no room."""
        paced = self._due - now if self.paced and self.known else 0.0
        if paced > 0:
            return paced
        return self._log[0].since + self._remembered(now) - now if self._limit is not None and self._log else NEVER

    def take(self, amount: float, now: float) -> Grain:
        """Note that so much is sent now, and return where that was noted."""
        self._forget(now)
        if self._guess is not None:
            self._guess.sent(amount, now)
        if self.known and self.paced:
            saved = GUESSED_BURST_S if self._guess is not None else self._burst / 2 ** self._calmed(now)
            self._due = (now if self._due == -NEVER else max(self._due, now - saved)) + amount / self.per_second(now)
        if not self._log or now - self._log[-1].since > self._window / GRAINS:
            self._log.append(Grain(now, 0.0))
        self._log[-1].amount += amount
        self._sum += amount
        return self._log[-1]

    def give(self, grain: Grain, amount: float, now: float) -> None:
        """Take back a part of what was noted; a negative part adds to it."""
        self.missed(amount)
        if self.known and self.paced:
            self._due -= amount / self.per_second(now)
        if self._log and self._log[0].since <= grain.since:
            grain.amount -= amount
            self._sum -= amount

    def hold(self, until: float) -> None:
        """Save nothing up before then."""
        self._due = max(self._due, until)

    def missed(self, amount: float) -> None:
        """Note that so much of what was sent did not pass, though the server counts it."""
        if self._guess is not None:
            self._guess.settled(amount)

    def rested(self, seconds: float) -> None:
        """Note that nobody had anything to send for so long: what was not used tells nothing of the limit."""
        if self._guess is not None:
            self._guess.rested(seconds)

    def learn(self, said: RateLimit, now: float) -> None:
        """Take over what a reply says about the limit."""
        if said.limit is None or said.limit <= 0:
            return
        self._in_headers, self._guess = True, None
        limit = min(self._written or NEVER, said.limit)
        if limit != self._limit:
            self._change(limit, now)
            self._due = max(self._due, now)
        if said.left is not None and said.left > self._capacity:
            self._capacity = said.left
            seen = self.period * said.left / said.limit
            self._burst = min(BURST_S, seen)
            self._window = next((window for window in WINDOWS_S if window >= seen * SEEN), self.period)

    def on_rate_limited(self, now: float, *, answered: bool = True) -> None:
        """The server said: too fast. Be more careful; where nobody tells the limit, guess it.

        Where nothing was answered that was sent since it last said so, it refuses whatever is sent, and tells nothing of the limit.
        """
        if self._guess is not None:
            self._guess.on_rate_limited(now, answered=answered)
        elif answered and self._limit is None:
            self._measure(now)
        elif answered:
            self._caution = min(self._calmed(now) + 1, MOST_CAUTION)
            self._cautious_since = now
            if not self._in_headers:
                share = self._shared(now)
                self._set_share(share * DOUBT, min(GROWTH, self._growth) if share < 1 else GROWTH, now)

    def halve(self, now: float) -> None:
        """The server said: growing too fast. Halve the rate, and let it grow back in half an hour."""
        if not self.known:
            self._measure(now)
        self._set_share(self._shared(now) * RAMP, RAMP_GROWTH, now)

    def _measure(self, now: float) -> None:
        """Take what was sent of late for the limit."""
        self._forget(now)
        seconds = max(1.0, now - self._log[0].since) if self._log else 1.0
        self._guess = Guess(self._sum / seconds, self._least / self.period, now)

    def _change(self, limit: float, now: float) -> None:
        """Take another limit: what is owed takes longer or shorter to pay."""
        if self._limit is not None and self._due > now:
            self._due = now + (self._due - now) * self._limit / limit
        self._limit = limit

    def _set_share(self, share: float, growth: float, now: float) -> None:
        self._share, self._growth, self._share_since = max(LEAST_SHARE, share), growth, now

    def _shared(self, now: float) -> float:
        """Return the share of the limit that is used now."""
        return min(1.0, self._share + self._growth * (now - self._share_since))

    def _calmed(self, now: float) -> int:
        return max(0, self._caution - int((now - self._cautious_since) / CALM_S)) if self._caution else 0

    def _slack(self, now: float) -> float:
        """Return the seconds that are allowed for latency."""
        return float((SLACK * self._window + LEAST_SLACK_S) * CAUTIOUS ** self._calmed(now)) if self.paced else 0.0

    def _window_wait(self, amount: float, now: float) -> float:
        """Return in how many seconds so much fits into the window; what is larger than the window gets it for itself."""
        self._forget(now)
        if self._limit is None or not self._log:
            return 0.0
        over = self._sum + amount - self._holds(now)
        if over <= 0:
            return 0.0
        leaves = now
        for grain in self._log:
            leaves = grain.since + self._remembered(now)
            over -= grain.amount
            if over <= 0:
                break
        return max(0.0, leaves - now)

    def _holds(self, now: float) -> float:
        """Return how much fits into the window."""
        return NEVER if self._limit is None else self._limit / self.period * self._window * self._shared(now)

    def _remembered(self, now: float) -> float:
        """Return the seconds after which what was sent no longer counts."""
        return self._window + self._window / GRAINS + self._slack(now)

    def _forget(self, now: float) -> None:
        """Forget what has left the window."""
        horizon = now - self._remembered(now)
        while self._log and self._log[0].since <= horizon:
            self._sum -= self._log.popleft().amount
        if not self._log:
            self._sum = 0.0  # sums of floats drift
