"""Which stages run next, together, on which worker: a pure state machine. No I/O, no clock, no Ray.

A stage is ready when everything it needs is done. Workers take *stage batches*: the first ready stage, and others of its
batch group that are cheaper together with it. Ready stages are taken by depth (later kinds of work first: judge before generate before tune, so
that cells finish one by one), then the longest first, so that the tail of the run is short; for the same reason a batch is never more than a share of what its
group has left. A worker is warm for the answers of the models that it tuned itself, because they are still in its memory:
it takes those first, then what nobody is warm for, and takes work away from another worker only rather than be idle.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from types import MappingProxyType

from engine.domain.stage import LEGAL_TRANSITIONS, MODEL_STAGES, Stage, StageKind, StageState
from engine.plan.share import Groups
from engine.run.slots import Slot, Work

ENDED = frozenset({StageState.DONE, StageState.FAILED, StageState.BLOCKED, StageState.SKIPPED})
_DEPTH = {kind: depth for depth, kind in enumerate(StageKind)}
Entry = tuple[int, float, int, str]
"""(-depth, -seconds, position in the plan, stage key): the smallest is taken first."""
Admits = Callable[[Stage], bool]

ROUNDS = 2
"""A batch is at most 1 / (workers * ROUNDS) of the expected seconds that its group has left (guided self-scheduling, Polychronopoulos &
Kuck 1987, doi:10.1109/TC.1987.5009495), so that workers of different speed end together."""

LEAST_ROUNDS = 8
"""Floor of that share: 1 / (workers * LEAST_ROUNDS) of the seconds that the group had in all, because small batches save little."""

SMALL_SECONDS = 1.0
"""Floor of a batch in expected seconds, because every batch has a fixed cost."""

LARGE_SECONDS = 300.0
"""Ceiling of a batch in expected seconds: generation waits for the training in its batch, and people wait for results."""

PACK = 16
"""So many training runs are in a tune batch where packs gain from their width, as long as a worker's fair share of the group's seconds
holds them. How many of them train at the same time is measured by the worker."""

LARGEST = MappingProxyType(
    {
        StageKind.SAMPLE: 256,
        StageKind.ROWS: 64,
        StageKind.TUNE: 64,
        StageKind.WEIGHTS: 16,
        StageKind.GENERATE: 128,
        StageKind.SCREEN: 128,
        StageKind.JUDGE: 128,
    }
)
"""Most stages in a batch (for tuning, training runs): what a worker that dies loses, and what one commit records."""


class Scheduler:
    """The state of every stage, and the order of the ready ones.

    Stages come by key, inputs before what needs them; those that are `done` need not run. `seconds` are the device-seconds that
    are expected, shared work counted once. `is_packing` says whether training runs are quicker together: on a CPU they are not, and a batch
    of them would only keep other workers waiting.

    Attributes:
        counts: Stages by (kind, state).
    """

    def __init__(
        self,
        stages: Mapping[str, Stage],
        done: AbstractSet[str],
        seconds: Mapping[str, float],
        groups: Groups,
        slots: tuple[Slot, ...],
        *,
        is_packing: bool = True,
    ) -> None:
        """Find what is ready."""
        self._is_packing = is_packing
        self._stages = stages
        self._seconds = seconds
        self._groups = groups
        self._slots = slots
        self._state = {key: StageState.DONE if key in done else StageState.PENDING for key in stages}
        self._order = {key: position for position, key in enumerate(stages)}
        self._waits = {
            key: sum(self._state[need] is not StageState.DONE for need in stage.needs) for key, stage in stages.items()
        }
        self._dependants: dict[str, list[str]] = {}
        for key, stage in stages.items():
            for need in stage.needs:
                self._dependants.setdefault(need, []).append(key)
        self.counts: Counter[tuple[StageKind, StageState]] = Counter(
            (stages[key].kind, state) for key, state in self._state.items()
        )
        self._left: dict[str, float] = {}  # expected seconds by batch group, of what is pending
        for key, state in self._state.items():
            if state is StageState.PENDING:
                self._change_left(key, 1)
        self._total = dict(self._left)
        self._alone: set[str] = set()
        self._queues: dict[tuple[str | None, Work | str], list[Entry]] = {}  # (warm slot, work or group) -> heap
        works = dict.fromkeys(self._work_of(key) for key in stages)
        self._works = {slot.name: [work for work in works if slot.serves(work)] for slot in slots}
        for key, waits in self._waits.items():
            if waits == 0 and self._state[key] is StageState.PENDING:
                self._offer(key, None)

    def _work_of(self, key: str) -> Work:
        stage = self._stages[key]
        return stage.kind, stage.worker, self._groups.accounts.get(key)

    def state(self, key: str) -> StageState:
        """Return where a stage stands."""
        return self._state[key]

    @property
    def finished(self) -> bool:
        """Whether every stage has ended."""
        return all(count == 0 or state in ENDED for (_, state), count in self.counts.items())

    def take(self, slot: Slot, admits: Admits) -> tuple[Stage, ...]:
        """Return the batch that a slot should run next, marked as running; empty when nothing is ready for it.

        `admits` says of one stage after another whether it may start; the first refusal ends the batch.
        """
        place, first = self._next(slot)
        if first is None:
            return ()
        batch: list[Stage] = []
        work, group = self._work_of(first[3]), self._groups.batch_groups[first[3]]
        kind = work[0]
        slots = sum(other.serves(work) for other in self._slots)
        most, fair, taken = self._share(group, slots), self._left[group] / slots, 0.0
        for number, run in enumerate(self._companions(first, place, group)):
            seconds = sum(self._seconds.get(key, 0.0) for key in run)
            is_pack = self._is_packing and kind is StageKind.TUNE and number < PACK
            if number and (number >= LARGEST[kind] or taken + seconds > (max(most, fair) if is_pack else most)):
                break
            taken += seconds
            for key in run:
                if not admits(self._stages[key]):
                    return tuple(batch)
                self._move(key, StageState.RUNNING)
                batch.append(self._stages[key])
        return tuple(batch)

    def _next(self, slot: Slot) -> tuple[str | None, Entry | None]:
        """Return the first ready entry for a slot, and whose queue it is in."""
        others = [other.name for other in self._slots if other is not slot]
        for places in ([slot.name], [None], others):
            heads = [
                (head, place)
                for place in places
                for work in self._works[slot.name]
                if (head := self._first(self._queues.get((place, work), [])))
            ]
            if heads:
                head, place = min(heads, key=lambda found: found[0])
                return place, head
        return None, None

    def _share(self, group: str, slots: int) -> float:
        """Expected seconds that a batch of a group may have."""
        rounds = ROUNDS if slots > 1 else 1
        least = max(SMALL_SECONDS, self._total[group] / (slots * LEAST_ROUNDS))
        return min(LARGE_SECONDS, max(least, self._left[group] / (slots * rounds)))

    def _companions(self, first: Entry, place: str | None, group: str) -> Iterator[list[str]]:
        """Yield what goes into a batch, the first entry first; the checkpoints of a training run come together."""
        yield self._whole_run(first[3])
        queue = self._queues.get((place, group), [])
        while first[3] not in self._alone and (head := self._first(queue)):
            if head[3] in self._alone:
                return
            yield self._whole_run(head[3])

    def _whole_run(self, key: str) -> list[str]:
        """The checkpoints of the training run of `key` that are ready, the shortest first; for other stages, the stage."""
        return [
            checkpoint
            for checkpoint in self._groups.checkpoints.get(key, (key,))
            if self._state[checkpoint] is StageState.PENDING and self._waits[checkpoint] == 0
        ]

    def _first(self, queue: list[Entry]) -> Entry | None:
        """Return the head of a queue, dropping what was started meanwhile."""
        while queue and self._state[queue[0][3]] is not StageState.PENDING:
            heapq.heappop(queue)
        return queue[0] if queue else None

    def release(self, key: str) -> None:
        """Put a running stage back whose worker died: it may have killed it, so it gets no company any more."""
        self._move(key, StageState.PENDING)
        self._alone |= set(self._groups.checkpoints.get(key, (key,)))
        self._offer(key, None)

    def end(self, key: str, state: StageState, slot: str) -> tuple[str, ...]:
        """Mark a stage that a slot ran as done, failed or blocked; return those skipped because of it, direct dependants first."""
        self._move(key, state)
        if state is not StageState.DONE:
            return self._skip_dependants(key)
        is_local = key not in self._groups.accounts
        warm = slot if is_local and self._stages[key].kind in MODEL_STAGES else None
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
        run = self._groups.checkpoints.get(key, (key,))
        seconds = sum(self._seconds.get(checkpoint, 0.0) for checkpoint in run)
        entry = (-_DEPTH[kind], -seconds, self._order[key], key)
        for queue in (self._work_of(key), self._groups.batch_groups[key]):
            heapq.heappush(self._queues.setdefault((warm, queue), []), entry)

    def _move(self, key: str, state: StageState) -> None:
        old = self._state[key]
        if state not in LEGAL_TRANSITIONS[old]:
            raise ValueError(f"stage {key} cannot go from {old.value} to {state.value}")
        self._state[key] = state
        if StageState.PENDING in (old, state):
            self._change_left(key, 1 if state is StageState.PENDING else -1)
        kind = self._stages[key].kind
        self.counts[kind, old] -= 1
        self.counts[kind, state] += 1

    def _change_left(self, key: str, sign: int) -> None:
        group = self._groups.batch_groups[key]
        self._left[group] = self._left.get(group, 0.0) + sign * self._seconds.get(key, 0.0)
