"""A worker that is missed for too long loses its work to the others, and a run without workers ends with a reason."""

from __future__ import annotations

import pytest

from engine.domain.errors import RunError
from engine.run.executors.absences import Absences


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def absences(clock: Clock) -> Absences:
    found = Absences(60.0, clock)
    for worker in ("one", "two"):
        found.miss(worker, is_started=True)
    return found


def test_a_worker_without_a_place_is_told_of_once_and_once_more_when_it_comes(absences: Absences, clock: Clock) -> None:
    assert absences.came("one") == ""
    clock.now += 59
    assert absences.late(is_idle=False) == []
    clock.now += 1
    assert absences.late(is_idle=False) == [
        "two has not been there for 60 s, for no node has resources free, or its node is gone: others take its work until it comes"
    ]
    assert absences.late(is_idle=False) == []
    assert "two" in absences
    assert absences.came("two") == "two is there now"
    assert list(absences) == []


def test_the_run_ends_when_nothing_runs_and_all_that_could_come_are_late(absences: Absences, clock: Clock) -> None:
    clock.now += 50
    absences.miss("three", is_started=True)
    clock.now += 10
    assert len(absences.late(is_idle=True)) == 2, "the third may still come"
    clock.now += 50
    absences.late(is_idle=False)  # something runs
    with pytest.raises(
        RunError, match=r"nothing can go on: one has not been there for 60 s, .* gone; 3 workers are missed"
    ):
        absences.late(is_idle=True)


def test_a_worker_that_keeps_ending_as_it_starts_is_started_after_longer_and_longer_pauses(
    absences: Absences, clock: Clock
) -> None:
    absences.came("two")
    assert absences.ended("one", "no module named engine") == ""
    said = "one ended as it started, and is started again: no module named engine"
    for pause, news in ((2, said), (4, ""), (6, "")):
        clock.now += pause - 0.5
        assert absences.due() == []
        clock.now += 0.5
        assert absences.due() == ["one"]
        absences.miss("one", is_started=True)
        assert absences.due() == []
        assert absences.ended("one", "no module named engine") == news
    clock.now += 60
    with pytest.raises(RunError, match=r"one keeps ending as it starts \(no module named engine\)\n"):
        absences.late(is_idle=True)
