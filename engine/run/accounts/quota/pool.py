"""The state of one account's quota: who may send now, and when to look again. Pure: no I/O, and the time is an argument.

Everything that a request needs (a request, its tokens, tokens of the day, a place in flight) is taken at once or not at all, and
for whose turn it is all of it is saved up: large prompts do not starve. The server's own words (its headers, its
Retry-After) correct what is assumed; 429s only trim it.
"""

from __future__ import annotations

import heapq
import math
import random

from engine.domain.quota import Quota
from engine.ports.chat import ChatRequest, RateLimits
from engine.ports.provider_errors import ThrottledError, UnavailableError
from engine.run.accounts.backoff import backoff
from engine.run.accounts.quota.fair_queue import FairQueue, Ticket
from engine.run.accounts.quota.rate import DAY, NEVER, Rate

TRIES = 8
"""A request that the server failed so often is given up."""

NO_REPLY_TRIES = 4
"""So is one whose reply did not come so often: each of these sends may be billed."""

REFUSALS = 30
REFUSED_S = 1800.0
"""A request that was sent too fast so often, and for so long, was not sent too fast: something else is wrong with it. So it is with
all of them where nothing else was answered for so long."""

MOST_PAUSE_S = 3600.0
"""What a provider asks for is heeded up to this."""

HINTS = 2
MOST_HINT_S = 10.0
"""Where so many pauses as long as the provider asked for were followed by refusals only, they grow as well, up to this."""

PARK_S = 900.0
"""How often to look again whether a day's limit is there again, when the provider does not say."""

LEAST_REQUESTS, LEAST_TOKENS = 6, 3000
"""Where no limit is known and all is refused: what is still tried a minute."""

JITTER = 0.1
LEAST_JITTER_S = 0.02

PATIENCE_S = 0.25
"""For so long smaller requests may go before one whose turn it is and for which there is no room yet."""

LEAST_LOOK_S = 0.002
"""Timers of an event loop are no finer."""

FIRST = 4
"""Requests in flight at first where no limit is known; each reply that tells none adds one, so that they double at each round."""


def estimate(request: ChatRequest, *, output_settles: bool) -> int:
    """Return the tokens that the provider will count at first for a request, >= 1.

    Source: OpenAI's rate limit guide (read 2026-11-22): the larger of the longest answer asked for and the characters / 4.
    Providers that settle are expected to hold back the prompt and the longest answer.
    """
    answer, prompt = longest_answer(request), prompt_estimate(request)
    return max(1, prompt + answer if output_settles else max(prompt, answer))


def prompt_estimate(request: ChatRequest) -> int:
    """Return about how many tokens a request's prompt has: the characters / 4, by the same guide; no upper bound."""
    return math.ceil(request.characters / 4)


def longest_answer(request: ChatRequest) -> int:
    """Return the most tokens that may be generated for a request, of all its samples."""
    return request.max_tokens * request.samples


class Pool:
    """Who waits, what is in flight, and what is left.

    Attributes:
        in_flight: Requests that are sent and not answered.
        paused_until: When a pause ends, which the provider asked for; in the past when there is none.
    """

    def __init__(self, quota: Quota) -> None:
        """Start with nothing sent."""
        self.requests = Rate(quota.requests_per_minute, least=LEAST_REQUESTS)
        self.tokens = Rate(quota.tokens_per_minute, least=LEAST_TOKENS)
        self.day = Rate(quota.tokens_per_day, DAY)
        self.fair_queue = FairQueue()
        self.in_flight = 0
        self.paused_until = -NEVER
        self._quota = quota
        self._random = random.Random(0)  # noqa: S311 - jitter is no secret
        self._later: list[tuple[float, int, Ticket]] = []
        self._room = NEVER if self.requests.known or self.tokens.known else FIRST  # in flight
        self._slowed_at = -NEVER
        self._rate_limited = 0  # in a row: until something is answered that was sent after the first of them
        self._refusing_since = -NEVER  # the first of them
        self._answered = False  # something was answered so
        self._resting_since: float | None = None

    @property
    def waiting(self) -> int:
        """Requests that wait to be sent, for the first time or again."""
        return self.fair_queue.waiting + len(self._later)

    def next(self, now: float) -> Ticket | None:
        """Take the next request that may be sent now, or None."""
        self._promote(now)
        head = self.fair_queue.peek()
        self._rest(now, rests=not self.waiting)
        if head is None or self._shut(now) > 0:
            return None
        ticket = self.fair_queue.take() if self._lacks(head.tokens, now) <= 0 else self._smaller(head, now)
        if ticket is None:
            return None
        ticket.sent_at = now
        ticket.taken = (
            self.requests.take(1, now),
            self.tokens.take(ticket.tokens, now),
            self.day.take(ticket.tokens, now),
        )
        self.in_flight += 1
        return ticket

    def wait(self, now: float) -> float:
        """Return after how many seconds `next` should be asked again; infinity when only a reply or a request changes it."""
        self._promote(now)
        later = self._later[0][0] - now if self._later else NEVER
        head = self.fair_queue.peek()
        if head is None:
            return later
        shut = self._shut(now)
        if shut > 0:
            return min(later, shut)
        lacks = self._lacks(head.tokens, now)
        if lacks > 0 and self.fair_queue.waiting > 1:  # a smaller one may fit before
            stirs = min(self.tokens.stirs(now), self.day.stirs(now))
            lacks = min(lacks, max(self.requests.wait(1, now), stirs, LEAST_LOOK_S))
        return min(later, lacks)

    def answered(self, ticket: Ticket, rate_limits: RateLimits, tokens: int, now: float) -> None:
        """Note a reply: what its headers say, and the tokens that were really used."""
        self._landed()
        if ticket.sent_at >= self._refusing_since:  # before, it was not refusing yet
            self._rate_limited, self._answered = 0, True
        self._room += 1
        self.requests.learn(rate_limits.requests, now)
        self.tokens.learn(rate_limits.tokens, now)
        if self.requests.known or self.tokens.known:
            self._room = NEVER
        if self._quota.output_settles:
            self._give(ticket, ticket.tokens - tokens, now)
        self.fair_queue.ended(ticket.flow)

    def throttled(self, ticket: Ticket, error: ThrottledError, now: float) -> bool:
        """Note that a request was sent too fast, and return whether it is sent again: then before all others of its flow.

        Everything pauses for as long as the provider says. What is larger than a whole limit will never pass.
        """
        self._landed()
        self._rest(now, rests=False)
        self._give(ticket, ticket.tokens, now)  # its request was counted, its tokens were not
        self.requests.missed(1)
        fits = self.tokens.allows(ticket.tokens) and self.day.allows(ticket.tokens)
        if not fits or self._refused_for_good(ticket, error, now):
            self.fair_queue.ended(ticket.flow)
            return False
        if error.scope != "day" and ticket.sent_at >= self._slowed_at:  # later ones only tell again what is known
            self._slow_down(error.scope, now)
        self.paused_until = max(self.paused_until, now + self._jittered(min(self._pause(error), MOST_PAUSE_S)))
        if self._rate_limited > 1:  # nothing passes: what a pause saves up would be refused at once
            for rate in (self.requests, self.tokens):
                rate.hold(self.paused_until)
        self.fair_queue.put_back(ticket)
        return True

    def failed(self, ticket: Ticket, error: UnavailableError, now: float) -> bool:
        """Note that the server failed and did nothing, and return whether the request is sent again."""
        ticket.failures += 1
        return self._again(ticket, error.seconds or 0.0, now, gives_up=ticket.failures >= TRIES)

    def no_reply(self, ticket: Ticket, now: float) -> bool:
        """Note that no reply came, so that nobody knows what was done, and return whether the request is sent again."""
        ticket.no_reply += 1
        return self._again(ticket, 0.0, now, gives_up=ticket.no_reply >= NO_REPLY_TRIES)

    def handed_on(self, ticket: Ticket) -> None:
        """Note that a request ended with an error that is not repeated, or that nobody waits for its reply any more."""
        self._landed()
        self.fair_queue.ended(ticket.flow)

    def given_up(self, ticket: Ticket) -> None:
        """Note that nobody wants a waiting request to be sent any more."""
        later = [entry for entry in self._later if entry[2] is not ticket]
        if len(later) < len(self._later):
            self._later = later
            heapq.heapify(self._later)
        else:
            self.fair_queue.drop(ticket)
        self.fair_queue.ended(ticket.flow)

    def _again(self, ticket: Ticket, seconds: float, now: float, *, gives_up: bool) -> bool:
        """Let a request that was sent in vain wait, for longer each time and for no less than asked for, or end."""
        self._landed()
        if gives_up:
            self.fair_queue.ended(ticket.flow)
            return False
        wait = max(min(seconds, MOST_PAUSE_S), backoff(ticket.failures + ticket.no_reply))
        heapq.heappush(self._later, (now + self._jittered(wait), ticket.place, ticket))
        return True

    def _refused_for_good(self, ticket: Ticket, error: ThrottledError, now: float) -> bool:
        """Count a refusal, and tell whether there were too many; a day's limit refuses for as long as it likes."""
        if error.scope == "day":
            return False
        ticket.refusals += 1
        if ticket.refusals == 1:
            ticket.refused_at = now
        refused = ticket.refusals, now - ticket.refused_at
        all_refused = self._rate_limited, now - self._refusing_since
        return any(times >= REFUSALS and seconds >= REFUSED_S for times, seconds in (refused, all_refused))

    def _slow_down(self, scope: str, now: float) -> None:
        """Slow down."""
        self._slowed_at = now
        self._rate_limited += 1
        if self._rate_limited == 1:
            self._refusing_since = now
        for rate in (self.requests, self.tokens):
            if scope == "rate":
                rate.on_rate_limited(now, answered=self._answered)
            elif self._rate_limited == 1:
                rate.halve(now)
        self._answered = False

    def _pause(self, error: ThrottledError) -> float:
        """Return the seconds to pause: the provider's own, which grow where nothing but refusals has come of them."""
        if error.seconds is None:
            return PARK_S if error.scope == "day" else backoff(self._rate_limited)
        grown = backoff(self._rate_limited - HINTS) if self._rate_limited > HINTS else 0.0
        return max(error.seconds, min(MOST_HINT_S, grown))

    def _rest(self, now: float, *, rests: bool) -> None:
        """Note since when nobody has anything to send, or that somebody has again."""
        if not rests and self._resting_since is not None:
            for rate in (self.requests, self.tokens):
                rate.rested(now - self._resting_since)
            self._resting_since = None
        elif rests and self._resting_since is None:
            self._resting_since = now

    def _promote(self, now: float) -> None:
        """Let those whose back-off is over wait for their turn."""
        while self._later and self._later[0][0] <= now:
            self.fair_queue.put_back(heapq.heappop(self._later)[2])

    def _shut(self, now: float) -> float:
        """Return in how many seconds anything at all may be sent; 0 means now, infinity after a reply."""
        if self.in_flight >= min(self._quota.max_in_flight, self._room):
            return NEVER
        return max(0.0, self.paused_until - now)

    def _lacks(self, tokens: int, now: float) -> float:
        """Return in how many seconds everything that a request needs is there."""
        return max(self.requests.wait(1, now), self.tokens.wait(tokens, now), self.day.wait(tokens, now))

    def _smaller(self, head: Ticket, now: float) -> Ticket | None:
        """Take a request that fits before the next one in turn does (backfilling, as batch schedulers do it).

        For a moment any that fits, and then only into what the next one leaves unused anyway, without delaying that. Small windows
        would else be left half empty before each large prompt. Tokens of the day are not lent: they do not come back so soon.
        """
        if head.turn_at is None:
            head.turn_at = now
        if max(self.requests.wait(1, now), self.tokens.wait(1, now), self.day.wait(1, now)) > 0:
            return None
        most = min(self.tokens.room(now), self.day.room(now), self.day.beside(head.tokens, now))
        if now - head.turn_at >= PATIENCE_S:
            if self.requests.beside(1, now) < 1:
                return None
            most = min(most, self.tokens.beside(head.tokens, now))
        return self.fair_queue.take_smaller(most) if most >= 1 else None

    def _give(self, ticket: Ticket, tokens: int, now: float) -> None:
        """Take back tokens that were noted."""
        for rate, grain in zip((self.tokens, self.day), ticket.taken[1:], strict=True):
            rate.give(grain, tokens, now)

    def _landed(self) -> None:
        self.in_flight -= 1

    def _jittered(self, seconds: float) -> float:
        """Return a little more, never less: the provider's own wait is the least."""
        return seconds + self._random.uniform(0, LEAST_JITTER_S + JITTER * seconds)
