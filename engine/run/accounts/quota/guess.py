"""A limit that nobody tells, as far as what passes shows it. Pure: the time is an argument.

What passed between two 429s *is* the limit, however the server holds it: each 429 that ends a while in which requests were answered
is a measurement. From a little below it the rate climbs back to what was measured, lingers, and then probes beyond it, on
the curve of CUBIC (RFC 9438, 2023): most of the limit is used, and it is overstepped once a round.

429s that come thick, or after which nothing is answered, are a storm, not a measurement: the server is overloaded, or somebody
else uses the account. They cut the rate, and take next to nothing from what was measured before: after the storm it is soon
back.
"""

from __future__ import annotations

MEASURED_S = 30.0
"""A 429 this long after the last measurement is the next one."""

PROBE = 0.15
"""Begin this share below what was measured, and be as far above it after as long again as it took to be back."""

BEYOND = 0.5
"""When it went beyond for so long, compared to the climb, only that part is measured: before, more would have passed."""

CUT = 0.7
"""Each 429 of a storm keeps this share of the rate."""

LEAST_SHARE = 0.1
"""No storm leaves less than this of what was measured, and no measurement less than `LEAST_LEFT` of the one before."""

LEAST_LEFT = 0.5

SUSPECT = 0.9
"""What each storm leaves of what was measured, whatever its length: if that was wrong, storms will not end."""

CLIMB_ASKS = 40.0
LEAST_CLIMB_S, MOST_CLIMB_S = 20.0, 600.0
"""The climb takes so many requests, so that few of them are 429s where few are allowed; but within these seconds."""


class Guess:
    """What is known of such a limit.

    Args:
        rate: The first, rough measurement, a second.
        least: What is never guessed to be too much, a second, > 0.
        now: The time.

    Attributes:
        aim: What was measured, a second.
    """

    def __init__(self, rate: float, least: float, now: float) -> None:
        """Begin below what was measured."""
        self.aim = max(least, rate)
        self._least = least
        self._rough = True
        self._share, self._cut_at, self._climb = 1.0 - PROBE, now, LEAST_CLIMB_S
        self._begun, self._passed, self._requests = now, 0.0, 0
        self._beyond = 0.0  # what of it passed after the climb
        self._answered = True  # something was answered between the last two refusals

    def per_second(self, now: float) -> float:
        """Return how much to send each second."""
        way = (now - self._cut_at) / self._climb - 1.0
        depth = 1.0 - self._share if way < 0 else PROBE
        return max(self._least, self.aim * (1.0 + depth * way**3))

    def sent(self, amount: float, now: float) -> None:
        """Count a request of so much as passed, until it is known to have been refused."""
        if now >= self._begun:
            self._passed += amount
            self._requests += 1
        if now >= self._cut_at + self._climb:
            self._beyond += amount

    def settled(self, amount: float) -> None:
        """Count so much less, because it was not used, or was refused."""
        self._passed = max(0.0, self._passed - amount)
        self._beyond = max(0.0, self._beyond - amount)

    def rested(self, seconds: float) -> None:
        """Let nothing change for so long: nobody had anything to send."""
        self._cut_at += seconds
        self._begun += seconds

    def on_rate_limited(self, now: float, *, answered: bool) -> None:
        """The server said: too fast. `answered` tells whether anything was that was sent since it last said so."""
        seconds, beyond = now - self._begun, now - self._cut_at - self._climb
        if answered and seconds >= MEASURED_S:
            self._measure(self._beyond / beyond if beyond >= BEYOND * self._climb else self._passed / seconds)
            self._begin(now)
        else:
            self._share = max(LEAST_SHARE, CUT * min(1.0, self.per_second(now) / self.aim))
            if not answered and not self._rough:
                self.aim = max(self._least, self.aim * (SUSPECT if self._answered else 1.0))
                left = (PROBE / (1.0 - self._share)) ** (1 / 3)  # of the way, once it is back where it began
                self._begin(now + self._climb * (1.0 - left))
        self._cut_at, self._beyond, self._answered = now, 0.0, answered

    def _begin(self, at: float) -> None:
        """Measure from then on."""
        self._begun, self._passed, self._requests = at, 0.0, 0

    def _measure(self, found: float) -> None:
        """Take over what passed a second."""
        mean = self._passed / max(1, self._requests)
        self.aim = max(self._least, found, 0.0 if self._rough else LEAST_LEFT * self.aim)
        self._rough, self._share = False, 1.0 - PROBE
        self._climb = min(MOST_CLIMB_S, max(LEAST_CLIMB_S, CLIMB_ASKS * mean / self.aim))
