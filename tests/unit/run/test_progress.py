"""How far a run is while its stages run: what they say moves the time left."""

from __future__ import annotations

from collections import Counter

import pytest

from engine.domain.stage import StageKind, StageState
from engine.run.drive import progress
from engine.run.drive.progress import Progress, Snapshot

from .driven import ACME, Drive


class Clock:
    """Time that passes when it is told to."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


class Run:
    """Two training stages, of 100 and 300 expected seconds, and nothing else that takes time."""

    def __init__(self, drive: Drive, workers: int) -> None:
        plan = drive.prepared(f"{ACME}axes: {{tune.force: [1.0, 2.0]}}\n").plan
        self.short, self.long = (stage.key for stage in plan.stages.values() if stage.kind is StageKind.TUNE)
        seconds = dict.fromkeys(plan.stages, 0.0) | {self.short: 100.0, self.long: 300.0}
        self.progress = Progress(plan, frozenset(), seconds, workers, {})

    def snapshot(self, **shares: dict[str, float]) -> Snapshot:
        self.progress.reached(shares)
        return self.progress.snapshot(Counter(), None, draining=False)


def test_the_time_left_follows_what_a_running_stage_says_at_the_pace_that_it_has(drive: Drive, clock: Clock) -> None:
    run = Run(drive, workers=1)
    assert run.snapshot(a={run.long: 0.0}).seconds_left is None
    clock.now += 60  # it loads its model
    assert run.snapshot(a={run.long: 0.0}).longest is None
    clock.now += 10
    run.snapshot(a={run.long: 0.1})
    clock.now += 60
    half = run.snapshot(a={run.long: 0.2})  # 30 expected seconds took 60
    assert half.longest == (StageKind.TUNE, 0.2)
    assert half.seconds_left == pytest.approx(2 * (240 + 100))
    clock.now += 5
    assert run.snapshot(a={run.long: 0.2}).seconds_left == half.seconds_left, "it says nothing new"
    run.progress.ended(run.long, StageState.DONE, 600.0)
    after = run.snapshot(a={run.short: 0.0})
    assert (after.longest, after.seconds_left) == (None, pytest.approx(2 * 100))


def test_workers_share_what_is_left_and_cannot_share_what_one_has_begun(drive: Drive, clock: Clock) -> None:
    run = Run(drive, workers=2)
    run.snapshot(a={run.long: 0.5}, b={run.short: 0.5})
    clock.now += 30
    now = run.snapshot(a={run.long: 0.6}, b={run.short: 0.8})  # 60 expected seconds of two workers took 60
    assert now.longest == (StageKind.TUNE, 0.6)
    assert now.seconds_left == pytest.approx(120), "of the long one, not half of 140"


def test_a_stage_that_was_stopped_is_all_to_do_again(drive: Drive, clock: Clock) -> None:
    run = Run(drive, workers=1)
    run.snapshot(a={run.long: 0.5})
    clock.now += 30
    run.snapshot(a={run.long: 0.6})
    assert run.snapshot().longest is None
    run.progress.ended(run.short, StageState.DONE, 100.0)
    assert run.snapshot().seconds_left == pytest.approx(300)
