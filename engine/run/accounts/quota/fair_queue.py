"""Whose turn it is. Pure.

A *flow* is one cell's stage. FairQueue share by deficit round robin over tokens (Shreedhar & Varghese 1995,
doi:10.1145/217382.217453), so that a cell with long prompts takes no more than its neighbours. What is urgent (judges: they
finish cells) goes before what is not, and of equals a flow that is nearly finished before one that is not, because only
finished cells are results. So that nobody starves, one turn in `GRACE` goes to who comes later in that order.
"""

from __future__ import annotations

import itertools
from collections import deque
from dataclasses import dataclass, field

from engine.run.accounts.quota.rate import Grain

TURN_TOKENS = 4096
"""What a flow may send before the next one's turn."""

GRACE = 16

NEARLY = 0.1
FEW = 8
"""A flow is nearly finished when it has this share of its requests left, or so few."""

LOOK_DEEP = 32
LOOK_FAR = 512
"""When the next one does not fit yet: how many of a flow, and of all, are looked at for one that does."""

RANKS = 4


@dataclass(slots=True, eq=False)
class Ticket:
    """A request, as the quota sees it.

    Attributes:
        flow: The flow that it belongs to.
        urgent: Whether its flow goes before others; all requests of a flow agree.
        tokens: What it will be counted as, estimated, >= 1.
        place: Whom it came after; kept when it is sent again.
        failures: How often the server said that it failed.
        no_reply: How often its reply never came: each of these sends may be billed.
        refusals: How often it was throttled, by a day's limit not counted.
        refused_at: When it was throttled first.
        turn_at: When its turn first came, in seconds of the pool's clock; None before.
        sent_at: When it was sent last.
        taken: Where its request, its tokens and its tokens of the day were noted.
    """

    flow: str
    urgent: bool
    tokens: int
    place: int = 0
    failures: int = 0
    no_reply: int = 0
    refusals: int = 0
    refused_at: float = 0.0
    turn_at: float | None = None
    sent_at: float = 0.0
    taken: tuple[Grain, ...] = ()


@dataclass(slots=True, eq=False)
class _Flow:
    """A flow's waiting requests, oldest first; of all that were expected, how many have not ended."""

    expected: int = 0
    left: int = 0
    deficit: float = 0.0
    rank: int = 0
    waiting: deque[Ticket] = field(default_factory=deque)

    def ranked(self, *, urgent: bool) -> int:
        """Return its rank: the lowest goes first."""
        nearly = self.expected > 0 and self.left <= max(FEW, self.expected * NEARLY)
        return (0 if urgent else 2) + (0 if nearly else 1)


class FairQueue:
    """The requests that wait for their turn.

    Attributes:
        waiting: How many there are.
    """

    def __init__(self) -> None:
        """Nobody waits."""
        self.waiting = 0
        self._flows: dict[str, _Flow] = {}
        self._rounds: tuple[deque[_Flow], ...] = tuple(deque() for _ in range(RANKS))  # flows that wait, by rank
        self._places = 0
        self._turns = 0
        self._next: _Flow | None = None

    def expect(self, flow: str, number: int) -> None:
        """Say that a flow will have so many more requests."""
        state = self._flows.setdefault(flow, _Flow())
        state.expected += number
        state.left += number
        self._rank(state)

    def ended(self, flow: str) -> None:
        """Say that one of a flow's requests has ended, whatever came of it."""
        state = self._flows.get(flow)
        if state is None:
            return
        state.left = max(0, state.left - 1)
        if state.left or state.waiting:
            self._rank(state)
        else:
            del self._flows[flow]

    def put(self, ticket: Ticket) -> None:
        """Let a request wait behind those of its flow."""
        self._places += 1
        ticket.place = self._places
        self._enter(ticket).waiting.append(ticket)

    def put_back(self, ticket: Ticket) -> None:
        """Let a request that was sent in vain wait before all others of its flow."""
        self._enter(ticket).waiting.appendleft(ticket)

    def drop(self, ticket: Ticket) -> None:
        """Let a waiting request wait no more."""
        state = self._flows[ticket.flow]
        state.waiting.remove(ticket)
        self._left(state)

    def peek(self) -> Ticket | None:
        """Return whose turn it is; the same until something changes."""
        if self._next is None and self.waiting:
            fronts = [self._front(members) for members in self._rounds if members]
            graced = self._turns % GRACE == GRACE - 1 and len(fronts) > 1
            self._next = min(fronts[1:], key=lambda state: state.waiting[0].place) if graced else fronts[0]
        return self._next.waiting[0] if self._next is not None else None

    def take(self) -> Ticket:
        """Return whose turn it is, who then waits no more.

        Raises:
            IndexError: Nobody waits.
        """
        if self.peek() is None or self._next is None:
            raise IndexError("nobody waits")
        state = self._next
        ticket = state.waiting.popleft()
        state.deficit -= ticket.tokens
        self._turns += 1
        self._left(state)
        return ticket

    def take_smaller(self, most: float) -> Ticket | None:
        """Return the largest of at most so many tokens, of some who would have their turn soon; it waits no more."""
        heads = itertools.chain.from_iterable(self._rounds)
        near = ((state, ticket) for state in heads for ticket in itertools.islice(state.waiting, LOOK_DEEP))
        fitting = (pair for pair in itertools.islice(near, LOOK_FAR) if pair[1].tokens <= most)
        state, ticket = max(fitting, key=lambda pair: pair[1].tokens, default=(None, None))
        if state is None or ticket is None:
            return None
        state.waiting.remove(ticket)
        state.deficit -= ticket.tokens
        self._left(state)
        return ticket

    def _enter(self, ticket: Ticket) -> _Flow:
        state = self._flows.setdefault(ticket.flow, _Flow())
        if not state.waiting:
            state.rank = state.ranked(urgent=ticket.urgent)
            self._rounds[state.rank].append(state)
            self._next = None
        self.waiting += 1
        return state

    def _left(self, state: _Flow) -> None:
        """Note that one of a flow's requests waits no more."""
        self.waiting -= 1
        self._next = None
        if not state.waiting:
            self._rounds[state.rank].remove(state)
            state.deficit = 0.0

    def _rank(self, state: _Flow) -> None:
        """Move a waiting flow to the round that it belongs to now."""
        if not state.waiting:
            return
        rank = state.ranked(urgent=state.waiting[0].urgent)
        if rank != state.rank:
            self._rounds[state.rank].remove(state)
            self._rounds[rank].append(state)
            state.rank, self._next = rank, None

    def _front(self, members: deque[_Flow]) -> _Flow:
        """Return whose turn it is in a round."""
        while members[0].deficit < members[0].waiting[0].tokens:
            members[0].deficit += TURN_TOKENS
            members.rotate(-1)
        return members[0]
