"""The order in which ready stages are taken, and with whom."""

from __future__ import annotations

import pytest

from engine.domain.stage import Binding, Stage, StageKind, StageState
from engine.plan.share import Groups
from engine.run.drive.scheduler import LARGE_SECONDS, Scheduler, Seat

MODEL = frozenset({StageKind.TUNE, StageKind.GENERATE})
A, B, C = (Seat(name, MODEL) for name in "abc")
DESK = Seat("desk", frozenset({StageKind.SAMPLE, StageKind.JUDGE}))


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


def scheduler(seconds: dict[str, float], *seats: Seat, lanes: dict[str, str] | None = None, **cuts: str) -> Scheduler:
    groups = Groups(
        {key: (lanes or {}).get(key, key) for key in STAGES},
        {key: tuple(several.split()) for key, several in cuts.items()},
        {},
        {},
        {},
    )
    return Scheduler(STAGES, frozenset(), seconds, groups, seats or (A, B, C, DESK))


def taken(found: Scheduler, seat: Seat) -> list[str]:
    return [entry.key for entry in found.take(seat, lambda _: True)]


def done(found: Scheduler, key: str, host: str) -> None:
    found.end(key, StageState.DONE, host)


def test_the_longest_comes_first_and_what_finishes_a_cell_before_what_begins_one() -> None:
    found = scheduler({"short": 1.0, "long": 9.0})
    assert taken(found, A) == ["long"]
    done(found, "long", "a")
    assert taken(found, A) == ["ask-long"]


def test_a_host_begins_new_work_before_it_takes_what_another_is_warm_for() -> None:
    found = scheduler({"short": 1.0, "long": 9.0})
    assert taken(found, A) == ["long"]
    done(found, "long", "a")
    assert taken(found, B) == ["short"]
    assert taken(found, C) == ["ask-long"]


def test_a_host_prefers_what_it_is_warm_for_and_an_idle_one_takes_it_away() -> None:
    found = scheduler({"long": 2.0, "ask-long": 5.0, "ask-short": 1.0})
    assert (taken(found, B), taken(found, A)) == (["long"], ["short"])
    done(found, "short", "a")
    done(found, "long", "b")
    assert taken(found, A) == ["ask-short"]
    assert taken(found, C) == ["ask-long"]
    assert taken(found, B) == []


def test_the_desk_judges_and_nobody_else_does() -> None:
    found = scheduler({"short": 9.0})
    for key in ("short", "ask-short"):
        assert taken(found, A) == [key]
        done(found, key, "a")
    assert taken(found, A) == ["long"]
    assert taken(found, B) == []
    assert taken(found, DESK) == ["grade-short"]


def test_stages_of_a_lane_go_together_up_to_a_share_of_what_the_lane_has_left() -> None:
    one_lane = dict.fromkeys(("short", "long"), "tune")
    few = scheduler({"short": 0.2, "long": 0.5}, A, lanes=one_lane)
    assert taken(few, A) == ["long", "short"], "so little is not worth two bundles"
    much = scheduler({"short": 20.0, "long": 30.0}, A, B, lanes=one_lane)
    assert taken(much, A) == ["long"], "the other host gets the rest"
    very_much = scheduler({"short": 3 * LARGE_SECONDS, "long": LARGE_SECONDS}, A, lanes=one_lane)
    assert taken(very_much, A) == ["short", "long"], "however long they take, they train in one pack"


def test_answers_do_not_wait_for_more_than_minutes_of_others() -> None:
    found = scheduler(
        {"ask-short": 2 * LARGE_SECONDS, "ask-long": LARGE_SECONDS}, A, lanes={"ask-short": "g", "ask-long": "g"}
    )
    for key in (*taken(found, A), *taken(found, A)):
        done(found, key, "a")
    assert taken(found, A) == ["ask-short"]


def test_the_cuts_of_a_trajectory_are_one_piece_of_work() -> None:
    found = scheduler({"short": 20.0, "long": 30.0}, A, B, short="short long", long="short long")
    assert taken(found, A) == ["short", "long"]
    assert taken(found, B) == []


def test_what_the_budget_refuses_stays_where_it_is() -> None:
    found = scheduler({"short": 0.2, "long": 0.5}, A, lanes=dict.fromkeys(("short", "long"), "tune"))
    assert [entry.key for entry in found.take(A, lambda entry: entry.key == "long")] == ["long"]
    assert found.state("short") is StageState.PENDING
    assert taken(found, A) == ["short"]


def test_what_saw_a_host_die_gets_no_company_any_more() -> None:
    found = scheduler({"short": 0.2, "long": 0.5}, A, lanes=dict.fromkeys(("short", "long"), "tune"))
    for key in taken(found, A):
        found.release(key, alone=True)
    assert taken(found, A) == ["long"]


def test_a_failure_skips_everything_behind_it_and_nothing_else() -> None:
    found = scheduler({"short": 1.0})
    assert taken(found, A) == ["short"]
    assert found.end("short", StageState.FAILED, "a") == ("ask-short", "grade-short")
    assert found.state("ask-long") is StageState.PENDING


def test_an_illegal_step_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot go from pending to failed"):
        scheduler({}).end("short", StageState.FAILED, "a")
