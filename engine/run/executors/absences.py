"""Workers that are not there: which of them have been missed for too long, and which are to be started again. No Ray, no I/O."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from engine.domain.errors import RunLostError

PAUSE_SECONDS = 2.0
"""Before a worker that ended as it started is started again; twice as long after the second time, and so on."""

TOLD_STARTS = 2
"""After so many starts that came to nothing the run says so."""


@dataclass(slots=True)
class _Absence:
    """A worker that has not said hello, or is asked whether it is still there.

    Attributes:
        since: When it was first missed.
        starts: How often it was started since.
        again: When it is to be started again; None while it may still come.
        why: How it ended last; empty where it waits for resources.
        is_told: Whether the run has said that it is missed.
    """

    since: float
    starts: int = 0
    again: float | None = None
    why: str = ""
    is_told: bool = False


class Absences:
    """The workers that are not there.

    Args:
        seconds: How long one may be missed, > 0.
        clock: Tells the time, in seconds.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Miss nobody yet."""
        self._seconds, self._clock = seconds, clock
        self._missed: dict[str, _Absence] = {}  # by worker

    def __iter__(self) -> Iterator[str]:
        return iter(self._missed)

    def __contains__(self, worker: str) -> bool:
        return worker in self._missed

    def miss(self, worker: str, *, is_started: bool) -> None:
        """Note that a worker was started, or asked whether it is still there; until it answers it is missed."""
        absence = self._missed.setdefault(worker, _Absence(self._clock()))
        if is_started:
            absence.starts, absence.again = absence.starts + 1, None

    def came(self, worker: str) -> str:
        """Note that a worker is there; return what people should know, or nothing."""
        return f"{worker} is there now" if self._missed.pop(worker).is_told else ""

    def ended(self, worker: str, why: str) -> str:
        """Note that a missed worker ended before it was there; return what people should know, or nothing.

        The first time is none of it: where a node is lost, a worker may be started there once more.
        """
        absence = self._missed[worker]
        absence.why, absence.again = why, self._clock() + PAUSE_SECONDS * max(1, absence.starts)
        return f"{worker} ended as it started, and is started again: {why}" if absence.starts == TOLD_STARTS else ""

    def due(self) -> list[str]:
        """Return the workers that are to be started again."""
        now = self._clock()
        return [name for name, absence in self._missed.items() if absence.again is not None and now >= absence.again]

    def late(self, *, is_idle: bool) -> list[str]:
        """Return what people should know of workers that have been missed for too long.

        Args:
            is_idle: Whether nothing runs, and nothing was heard.

        Raises:
            RunLostError: Nothing can go on.
        """
        late = {name: absence for name, absence in self._missed.items() if self._is_late(absence)}
        if is_idle and late and len(late) == len(self._missed):
            raise self._nobody(late)
        news = [name for name, absence in late.items() if not absence.is_told]
        for name in news:
            late[name].is_told = True
        return [f"{name} {self._told(late[name])}: others take its work until it comes" for name in news]

    def _is_late(self, absence: _Absence) -> bool:
        return self._clock() - absence.since >= self._seconds

    def _told(self, absence: _Absence) -> str:
        if absence.why:
            return f"keeps ending as it starts ({absence.why})"
        return f"has not been there for {self._seconds:g} s, for no node has resources free, or its node is gone"

    def _nobody(self, late: Mapping[str, _Absence]) -> RunLostError:
        worker, absence = next(iter(late.items()))
        more = f"; {len(late)} workers are missed" if len(late) > 1 else ""
        return RunLostError(
            f"nothing can go on: {worker} {self._told(absence)}{more}",
            where="run.resources",
            todo="look at the cluster with `ray status`; the same command goes on, and waits longer with a higher"
            " run.resources.placement_seconds",
        )
