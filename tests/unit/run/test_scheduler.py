"""The order in which ready stages are taken."""

from __future__ import annotations

import pytest

from engine.domain.stage import Binding, Stage, StageKind, StageState
from engine.run.scheduler import Scheduler


def stage(key: str, kind: StageKind, *inputs: str) -> Stage:
    return Stage(key, kind, "adapter", 1, "{}", inputs, Binding())


STAGES = {
    entry.key: entry
    for entry in (
        stage("short", StageKind.TUNE),
        stage("long", StageKind.TUNE),
        stage("ask-short", StageKind.GENERATE, "short"),
        stage("ask-long", StageKind.GENERATE, "long"),
        stage("grade-short", StageKind.JUDGE, "ask-short"),
    )
}


def test_the_longest_comes_first_and_what_finishes_a_cell_before_what_begins_one() -> None:
    scheduler = Scheduler(STAGES, frozenset(), {"short": 1.0, "long": 9.0})
    assert scheduler.peek("a") == STAGES["long"]
    scheduler.start("long")
    scheduler.end("long", StageState.DONE, "a")
    assert scheduler.peek("a") == STAGES["ask-long"]


def test_a_host_begins_new_work_before_it_takes_what_another_is_warm_for() -> None:
    scheduler = Scheduler(STAGES, frozenset(), {})
    scheduler.start("long")
    scheduler.end("long", StageState.DONE, "a")
    assert scheduler.peek("b") == STAGES["short"]
    scheduler.start("short")
    assert scheduler.peek("b") == STAGES["ask-long"]


def test_a_host_prefers_what_it_is_warm_for_and_an_idle_one_takes_it_away() -> None:
    scheduler = Scheduler(STAGES, frozenset(), {"ask-long": 5.0, "ask-short": 1.0})
    for key, host in (("short", "a"), ("long", "b")):
        scheduler.start(key)
        scheduler.end(key, StageState.DONE, host)
    assert scheduler.peek("a") == STAGES["ask-short"]
    assert scheduler.peek("b") == STAGES["ask-long"]
    assert scheduler.peek("c") == STAGES["ask-long"]
    scheduler.start("ask-long")
    assert scheduler.peek("b") == STAGES["ask-short"]


def test_a_failure_skips_everything_behind_it_and_nothing_else() -> None:
    scheduler = Scheduler(STAGES, frozenset(), {})
    scheduler.start("short")
    assert scheduler.end("short", StageState.FAILED, "a") == ("ask-short", "grade-short")
    assert scheduler.state("ask-long") is StageState.PENDING


def test_an_illegal_step_is_refused() -> None:
    scheduler = Scheduler(STAGES, frozenset(), {})
    with pytest.raises(ValueError, match="cannot go from pending to failed"):
        scheduler.end("short", StageState.FAILED, "a")
