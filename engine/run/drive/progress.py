"""How far a run is: cells, stages, rate, spend, and an honest guess of the time left."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Protocol

from engine.domain.plan import Plan
from engine.domain.stage import StageKind, StageState


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One moment of a run.

    Attributes:
        cells: All cells.
        cells_done: Cells whose stages are all done.
        cells_failed: Cells with a stage that failed.
        cells_blocked: Others, with a stage that its provider's moderation refused.
        stages: Number of stages by (kind, state).
        elapsed: Seconds since the run began.
        seconds_left: Expected seconds to the end, or None before anything has ended.
        cells_per_minute: Cells done in this run, per minute.
        usd: US dollars spent in this run directory so far, or None when no price is known.
        draining: True when no new work is started any more.
        longest: Of the running stages that say how far they are, the kind of the one with the most left, and how much of it is
            done, 0 to 1; None where none does.
    """

    cells: int
    cells_done: int
    cells_failed: int
    cells_blocked: int
    stages: Mapping[tuple[StageKind, StageState], int]
    elapsed: float
    seconds_left: float | None
    cells_per_minute: float
    usd: Decimal | None
    draining: bool
    longest: tuple[StageKind, float] | None = None


@dataclass(frozen=True, slots=True)
class _Pace:
    """How the running stages of one slot get on.

    Attributes:
        begin, now: When they were first seen on their way, and when they had last moved, by the monotonic clock.
        done_before, done: Expected seconds of what was done of them by then.
    """

    begin: float
    done_before: float
    now: float
    done: float

    def moved(self, now: float, done: float) -> _Pace:
        """Return it later; where a stage has ended, or none had moved yet, it begins anew: loading is no pace."""
        if done < self.done or not self.done:
            return _Pace(now, done, now, done)
        return replace(self, now=now, done=done) if done > self.done else self


class Observer(Protocol):
    """Somebody who watches a run."""

    def update(self, snapshot: Snapshot) -> None:
        """Take notice of a new moment; called a few times a second at most."""

    def note(self, text: str) -> None:
        """Take notice of an event worth a line."""


class Progress:
    """Counts cells as their stages end.

    By stage key, `seconds` are the device-seconds that are expected, and `hosted` the tokens of the stages that run at
    providers and hold no device. `workers` is the number of model workers.
    """

    def __init__(
        self,
        plan: Plan,
        cached: AbstractSet[str],
        seconds: Mapping[str, float],
        workers: int,
        hosted: Mapping[str, int],
    ) -> None:
        """Count what is left."""
        self._begun = time.monotonic()
        self._hosted = hosted
        self._hosted_left, self._hosted_done = sum(hosted[key] for key in hosted if key not in cached), 0
        self._workers = workers
        self._stages = plan.stages
        self._seconds = seconds
        self._shares: Mapping[str, Mapping[str, float]] = {}  # how much of the running stages is done, by slot and key
        self._paces: dict[str, _Pace] = {}  # by slot
        self._expected_left = sum(seconds[key] for key in plan.stages if key not in cached)
        self._expected_done = self._measured_done = 0.0
        self._cells_of: dict[str, list[int]] = {}
        self._open: list[int] = []
        for index, cell in enumerate(plan.cells):
            keys = [key for key in set(cell.stages) if key not in cached]
            self._open.append(len(keys))
            for key in keys:
                self._cells_of.setdefault(key, []).append(index)
        self._failed: set[int] = set()
        self._blocked: set[int] = set()
        self._cached_cells = self._open.count(0)
        self._done = self._cached_cells

    def ended(self, key: str, state: StageState, device_seconds: float) -> None:
        """Count a stage that ended."""
        self._expected_left -= self._seconds[key]
        self._hosted_left -= self._hosted.get(key, 0)
        self._hosted_done += self._hosted.get(key, 0)
        if device_seconds:
            self._expected_done += self._seconds[key]
            self._measured_done += device_seconds
        for index in self._cells_of.get(key, ()):
            self._open[index] -= 1
            if state is StageState.FAILED:
                self._failed.add(index)
            elif state is StageState.BLOCKED:
                self._blocked.add(index)
            elif self._open[index] == 0 and index not in self._failed and index not in self._blocked:
                self._done += 1

    def reached(self, shares: Mapping[str, Mapping[str, float]]) -> None:
        """Note how much of every running stage is done, 0 to 1, by slot of a device and stage key."""
        now = time.monotonic()
        done = {slot: sum(share * self._seconds[key] for key, share in own.items()) for slot, own in shares.items()}
        anew = _Pace(now, 0.0, now, 0.0)
        self._paces = {slot: self._paces.get(slot, anew).moved(now, seconds) for slot, seconds in done.items()}
        self._shares = shares

    @property
    def finished(self) -> int:
        """Cells done in this run."""
        return self._done - self._cached_cells

    def snapshot(
        self, stages: Counter[tuple[StageKind, StageState]], usd: Decimal | None, *, draining: bool
    ) -> Snapshot:
        """Return this moment."""
        elapsed = time.monotonic() - self._begun
        return Snapshot(
            cells=len(self._open),
            cells_done=self._done,
            cells_failed=len(self._failed),
            cells_blocked=len(self._blocked - self._failed),
            stages=dict(stages),
            elapsed=elapsed,
            seconds_left=self._seconds_left(),
            cells_per_minute=60 * self.finished / max(elapsed, 1e-9),
            usd=usd,
            draining=draining,
            longest=self._longest(),
        )

    def _longest(self) -> tuple[StageKind, float] | None:
        said = [(key, share) for own in self._shares.values() for key, share in own.items() if share]
        if not said:
            return None
        key, share = max(said, key=lambda entry: (1 - entry[1]) * self._seconds[entry[0]])
        return self._stages[key].kind, share

    def _seconds_left(self) -> float | None:
        """What devices still have to do, or providers as fast as they were, whichever takes longer; None while unknown."""
        left = []
        if self._hosted_left > 0:
            pace = (time.monotonic() - self._begun) / self._hosted_done if self._hosted_done else None
            left.append(None if pace is None else self._hosted_left * pace)
        if self._expected_left > 0 or not left:
            pace = self._pace()
            left.append(None if pace is None else self._expected_seconds_left() * pace)
        known = [seconds for seconds in left if seconds is not None]
        return max(known) if len(known) == len(left) else None

    def _pace(self) -> float | None:
        """Seconds that an expected second takes, in what has ended and in what is running; None before anything is done."""
        expected = self._expected_done + sum(pace.done - pace.done_before for pace in self._paces.values())
        measured = self._measured_done + sum(pace.now - pace.begin for pace in self._paces.values())
        return measured / expected if expected > 0 else None

    def _expected_seconds_left(self) -> float:
        """Expected seconds to the end: all that is left, shared by the workers, or what one has begun, if that is more."""
        running = [sum((1 - share) * self._seconds[key] for key, share in own.items()) for own in self._shares.values()]
        left = self._expected_left - sum(pace.done for pace in self._paces.values())
        return max(left / self._workers, *running, 0.0)
