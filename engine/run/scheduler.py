"""Which stage runs next, on which host: a pure state machine. No I/O, no clock, no Ray.

A stage is ready when everything it needs is done. Ready stages are taken by depth (what finishes a cell comes first),
then the longest first, so that the tail of the run is short. A host is warm for the stages whose input it made itself,
because the tuned model is still in its memory: it takes those first, then what nobody is warm for, and takes a stage
away from another host only rather than be idle.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Mapping
from collections.abc import Set as AbstractSet

from engine.domain.stage import LEGAL_TRANSITIONS, Stage, StageKind, StageState

ENDED = frozenset({StageState.DONE, StageState.FAILED, StageState.BLOCKED, StageState.SKIPPED})
_DEPTH = {kind: depth for depth, kind in enumerate(StageKind)}
Entry = tuple[int, float, int, str]


class Scheduler:
    """The state of every stage, and the order of the ready ones.

    Args:
        stages: Every stage by key, inputs before what needs them.
        done: Keys of the stages that need not run.
        seconds: Expected device-seconds by key; only their order matters.
    """

    def __init__(self, stages: Mapping[str, Stage], done: AbstractSet[str], seconds: Mapping[str, float]) -> None:
        """Find what is ready."""
        self._stages = stages
        self._seconds = seconds
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
        self._ready: list[Entry] = []
        self._warm: dict[str, list[Entry]] = {}
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

    def peek(self, host: str) -> Stage | None:
        """Return the stage that `host` should run next, or None when nothing is ready."""
        own = self._warm.get(host, [])
        others = (queue for name, queue in self._warm.items() if name != host)
        for queue in (own, self._ready):
            if first := self._first(queue):
                return self._stages[first[3]]
        stolen = min((first for queue in others if (first := self._first(queue))), default=None)
        return None if stolen is None else self._stages[stolen[3]]

    def _first(self, queue: list[Entry]) -> Entry | None:
        """Return the head of a queue, dropping what was started meanwhile."""
        while queue and self._state[queue[0][3]] is not StageState.PENDING:
            heapq.heappop(queue)
        return queue[0] if queue else None

    def start(self, key: str) -> None:
        """Mark a stage that `peek` returned as running."""
        self._move(key, StageState.RUNNING)

    def release(self, key: str) -> None:
        """Put a running stage back: its host died, or the run was interrupted."""
        self._move(key, StageState.PENDING)
        self._offer(key, None)

    def end(self, key: str, state: StageState, host: str) -> tuple[str, ...]:
        """Mark a running stage as ended.

        Args:
            key: The stage.
            state: How it ended: done, failed or blocked.
            host: The host that ran it; it is warm for the stages that this one makes ready.

        Returns:
            The keys of the stages that are skipped because of it, direct dependants first.
        """
        self._move(key, state)
        if state is not StageState.DONE:
            return self._skip_dependants(key)
        for dependant in self._dependants.get(key, ()):
            self._waits[dependant] -= 1
            if self._waits[dependant] == 0 and self._state[dependant] is StageState.PENDING:
                self._offer(dependant, host)
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

    def _offer(self, key: str, host: str | None) -> None:
        entry = (-_DEPTH[self._stages[key].kind], -self._seconds.get(key, 0.0), self._order[key], key)
        heapq.heappush(self._ready if host is None else self._warm.setdefault(host, []), entry)

    def _move(self, key: str, state: StageState) -> None:
        old = self._state[key]
        if state not in LEGAL_TRANSITIONS[old]:
            message = f"stage {key} cannot go from {old.value} to {state.value}"
            raise ValueError(message)
        self._state[key] = state
        kind = self._stages[key].kind
        self.counts[kind, old] -= 1
        self.counts[kind, state] += 1
