"""Which stages run next, together, on which host: a pure state machine. No I/O, no clock, no Ray.

A stage is ready when everything it needs is done. Hosts take *bundles*: the first ready stage, and others of its lane that
gain from its company. Ready stages are taken by depth (what finishes a cell, and so unblocks its judges, comes first), then
the longest first, so that the tail of the run is short; for the same reason a bundle is never more than a share of what
its lane has left. A host is warm for the answers of the models that it tuned itself, because they are still in its memory:
it takes those first, then what nobody is warm for, and takes work away from another host only rather than be idle.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from types import MappingProxyType

from engine.domain.stage import LEGAL_TRANSITIONS, Stage, StageKind, StageState
from engine.plan.share import Groups

ENDED = frozenset({StageState.DONE, StageState.FAILED, StageState.BLOCKED, StageState.SKIPPED})
_DEPTH = {kind: depth for depth, kind in enumerate(StageKind)}
Entry = tuple[int, float, int, str]
Admits = Callable[[Stage], bool]

ROUNDS = 2
"""A host takes at most 1 / (hosts * ROUNDS) of what a lane has left (guided self-scheduling, Polychronopoulos & Kuck 1987,
doi:10.1109/TC.1987.5009495), so that hosts of different speed end together."""

LEAST_ROUNDS = 8
"""Nor less than 1 / (hosts * LEAST_ROUNDS) of all that the lane had: small bundles gain little from company."""

SMALL_SECONDS = 1.0
"""Nor less than this many expected seconds: a bundle has its own fixed cost."""

LARGE_SECONDS = 300.0
"""But never more than this: answers of a bundle wait for its training, and people wait for answers."""

PACK = 16
"""Trajectories that a bundle has at least, if every host can have as many: how many train at once, the host measures."""

LARGEST = MappingProxyType({StageKind.SAMPLE: 256, StageKind.TUNE: 64, StageKind.GENERATE: 128, StageKind.JUDGE: 128})
"""Most stages in a bundle (for tuning, trajectories): what a host that dies loses, and what one commit records."""


@dataclass(frozen=True, slots=True)
class Seat:
    """What the scheduler knows of a host.

    Attributes:
        name: Its name.
        kinds: The kinds of stage that it runs.
        account: The account whose stages it runs; None for those that need no account.
        is_all: Whether it runs stages of every account, and those that need none.
    """

    name: str
    kinds: frozenset[StageKind]
    account: str | None = None
    is_all: bool = False

    def serves(self, kind: StageKind, account: str | None) -> bool:
        """Tell whether it runs stages of a kind on an account."""
        return kind in self.kinds and (self.is_all or account == self.account)


class Scheduler:
    """The state of every stage, and the order of the ready ones.

    Args:
        stages: Every stage by key, inputs before what needs them.
        done: Keys of the stages that need not run.
        seconds: Expected device-seconds by key, shared work counted once; only their proportions matter.
        groups: Which stages a host may take together.
        seats: The hosts.
    """

    def __init__(
        self,
        stages: Mapping[str, Stage],
        done: AbstractSet[str],
        seconds: Mapping[str, float],
        groups: Groups,
        seats: tuple[Seat, ...],
    ) -> None:
        """Find what is ready."""
        self._stages = stages
        self._seconds = seconds
        self._groups = groups
        self._seats = seats
        self._state = {key: StageState.DONE if key in done else StageState.PENDING for key in stages}
        self._order = {key: position for position, key in enumerate(stages)}
        self._waits = {
            key: sum(self._state[need] is not StageState.DONE for need in stage.inputs) for key, stage in stages.items()
        }
        self._dependants: dict[str, list[str]] = {}
        for key, stage in stages.items():
            for need in stage.inputs:
                self._dependants.setdefault(need, []).append(key)
        self.counts: Counter[tuple[StageKind, StageState]] = Counter(
            (stages[key].kind, state) for key, state in self._state.items()
        )
        self._left: dict[str, float] = {}  # expected seconds by lane, of what is pending
        self._pending: Counter[str] = Counter()  # stages by lane
        for key, state in self._state.items():
            if state is StageState.PENDING:
                self._change_left(key, 1)
        self._total = dict(self._left)
        self._alone: set[str] = set()
        self._queues: dict[tuple[str | None, str], list[Entry]] = {}  # (warm host, work or lane) -> heap
        works = {(stage.kind, groups.accounts.get(key)) for key, stage in stages.items()}
        self._works = {
            seat.name: sorted(_work(kind, account) for kind, account in works if seat.serves(kind, account))
            for seat in seats
        }
        for key, waits in self._waits.items():
            if waits == 0 and self._state[key] is StageState.PENDING:
                self._offer(key, None)

    def state(self, key: str) -> StageState:
        """Return where a stage stands."""
        return self._state[key]

    def dependants(self, key: str) -> tuple[str, ...]:
        """Return the stages that need `key` directly."""
        return tuple(self._dependants.get(key, ()))

    @property
    def running(self) -> int:
        """Number of running stages."""
        return sum(count for (_, state), count in self.counts.items() if state is StageState.RUNNING)

    @property
    def finished(self) -> bool:
        """Whether every stage has ended."""
        return all(count == 0 or state in ENDED for (_, state), count in self.counts.items())

    def take(self, seat: Seat, admits: Admits) -> tuple[Stage, ...]:
        """Return the bundle that a host should run next, marked as running; empty when nothing is ready for it.

        Args:
            seat: The host.
            admits: Says of one stage after another whether it may start; the first refusal ends the bundle.
        """
        place, first = self._next(seat)
        if first is None:
            return ()
        bundle: list[Stage] = []
        kind, lane = self._stages[first[3]].kind, self._groups.lanes[first[3]]
        hosts = sum(other.serves(kind, self._groups.accounts.get(first[3])) for other in self._seats)
        most, taken, least = self._share(lane, hosts), 0.0, 1
        for number, run in enumerate(self._companions(first, place, lane)):
            seconds = sum(self._seconds.get(key, 0.0) for key in run)
            least = least if number else self._least(lane, kind, len(run), hosts)
            if number >= least and (number >= LARGEST[kind] or taken + seconds > most):
                break
            taken += seconds
            for key in run:
                if not admits(self._stages[key]):
                    return tuple(bundle)
                self._move(key, StageState.RUNNING)
                bundle.append(self._stages[key])
        return tuple(bundle)

    def _next(self, seat: Seat) -> tuple[str | None, Entry | None]:
        """Return the first ready entry for a host, and whose queue it is in."""
        others = [other.name for other in self._seats if other is not seat]
        for places in ([seat.name], [None], others):
            heads = [
                (head, place)
                for place in places
                for work in self._works[seat.name]
                if (head := self._first(self._queues.get((place, work), [])))
            ]
            if heads:
                head, place = min(heads, key=lambda found: found[0])
                return place, head
        return None, None

    def _share(self, lane: str, hosts: int) -> float:
        """Expected seconds that a bundle of a lane may have."""
        rounds = ROUNDS if hosts > 1 else 1
        least = max(SMALL_SECONDS, self._total[lane] / (hosts * LEAST_ROUNDS))
        return min(LARGE_SECONDS, max(least, self._left[lane] / (hosts * rounds)))

    def _least(self, lane: str, kind: StageKind, cuts: int, hosts: int) -> int:
        """Stages (for tuning, trajectories) that a bundle has whatever they take: a pack gains from its width."""
        if kind is not StageKind.TUNE:
            return 1
        runs = -(-self._pending[lane] // cuts)
        return min(PACK, -(-runs // hosts))

    def _companions(self, first: Entry, place: str | None, lane: str) -> Iterator[list[str]]:
        """Yield what goes into a bundle, the first entry first; the cuts of a trajectory come together."""
        yield self._whole_run(first[3])
        queue = self._queues.get((place, lane), [])
        while first[3] not in self._alone and (head := self._first(queue)):
            if head[3] in self._alone:
                return
            yield self._whole_run(head[3])

    def _whole_run(self, key: str) -> list[str]:
        """The cuts of the trajectory of `key` that are ready, the shortest first; for other stages, the stage."""
        return [
            cut
            for cut in self._groups.cuts.get(key, (key,))
            if self._state[cut] is StageState.PENDING and self._waits[cut] == 0
        ]

    def _first(self, queue: list[Entry]) -> Entry | None:
        """Return the head of a queue, dropping what was started meanwhile."""
        while queue and self._state[queue[0][3]] is not StageState.PENDING:
            heapq.heappop(queue)
        return queue[0] if queue else None

    def release(self, key: str, *, alone: bool = False) -> None:
        """Put a running stage back: its host died, or the run was interrupted.

        Args:
            key: The stage.
            alone: It, or one of its companions, may have killed its host: it gets no company any more.
        """
        self._move(key, StageState.PENDING)
        if alone:
            self._alone |= set(self._groups.cuts.get(key, (key,)))
        self._offer(key, None)

    def end(self, key: str, state: StageState, host: str) -> tuple[str, ...]:
        """Mark a running stage as ended.

        Args:
            key: The stage.
            state: How it ended: done, failed or blocked.
            host: The host that ran it.

        Returns:
            The keys of the stages that are skipped because of it, direct dependants first.
        """
        self._move(key, state)
        if state is not StageState.DONE:
            return self._skip_dependants(key)
        is_local = key not in self._groups.accounts
        warm = host if is_local and self._stages[key].kind is StageKind.TUNE else None
        for dependant in self._dependants.get(key, ()):
            self._waits[dependant] -= 1
            if self._waits[dependant] == 0 and self._state[dependant] is StageState.PENDING:
                self._offer(dependant, warm)
        return ()

    def _skip_dependants(self, key: str) -> tuple[str, ...]:
        skipped: list[str] = []
        frontier = list(self._dependants.get(key, ()))
        while frontier:
            dependant = frontier.pop(0)
            if self._state[dependant] is StageState.PENDING:
                self._move(dependant, StageState.SKIPPED)
                skipped.append(dependant)
                frontier += self._dependants.get(dependant, ())
        return tuple(skipped)

    def _offer(self, key: str, warm: str | None) -> None:
        kind = self._stages[key].kind
        run = self._groups.cuts.get(key, (key,))
        seconds = sum(self._seconds.get(cut, 0.0) for cut in run)
        entry = (-_DEPTH[kind], -seconds, self._order[key], key)
        for queue in (_work(kind, self._groups.accounts.get(key)), self._groups.lanes[key]):
            heapq.heappush(self._queues.setdefault((warm, queue), []), entry)

    def _move(self, key: str, state: StageState) -> None:
        old = self._state[key]
        if state not in LEGAL_TRANSITIONS[old]:
            message = f"stage {key} cannot go from {old.value} to {state.value}"
            raise ValueError(message)
        self._state[key] = state
        if StageState.PENDING in (old, state):
            self._change_left(key, 1 if state is StageState.PENDING else -1)
        kind = self._stages[key].kind
        self.counts[kind, old] -= 1
        self.counts[kind, state] += 1

    def _change_left(self, key: str, sign: int) -> None:
        lane = self._groups.lanes[key]
        self._pending[lane] += sign
        self._left[lane] = self._left.get(lane, 0.0) + sign * self._seconds.get(key, 0.0)


def _work(kind: StageKind, account: str | None) -> str:
    return kind.value if account is None else f"{kind.value} of {account}"
