"""The order in which ready stages are taken, by whom, and with whom."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields

import pytest

from engine.domain.stage import KINDS, Stage, StageKind, StageState, WorkerKind
from engine.plan.share import Groups
from engine.run.drive.scheduler import LARGE_SECONDS, Scheduler
from engine.run.slots import Slot

WORK = {kind: work(*[None] * len(fields(work))) for work, kind in KINDS.items()}
"""Work of each kind that says nothing: the scheduler asks for no more than the kind."""
OF_MODELS = {StageKind.TUNE, StageKind.WEIGHTS, StageKind.GENERATE}

A, B, C = (Slot(name, WorkerKind.MODEL) for name in "abc")
CPU = Slot("cpu", WorkerKind.CPU)


def stage(key: str, kind: StageKind, *needs: str, worker: WorkerKind | None = None) -> Stage:
    """Return a stage that needs others; of its kind's usual worker unless told."""
    usual = WorkerKind.MODEL if kind in OF_MODELS else WorkerKind.CPU
    return Stage(key, "adapter", 1, WORK[kind], tuple((need, need) for need in needs), "{}", worker or usual)


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


def scheduler(
    seconds: dict[str, float],
    *slots: Slot,
    groups: Mapping[str, str] | None = None,
    accounts: Mapping[str, str] | None = None,
    **checkpoints: str,
) -> Scheduler:
    found = Groups(
        {key: (groups or {}).get(key, key) for key in STAGES},
        {key: tuple(several.split()) for key, several in checkpoints.items()},
        {},
        {},
        {},
        accounts or {},
    )
    return Scheduler(STAGES, frozenset(), seconds, found, slots or (A, B, C, CPU))


def taken(found: Scheduler, slot: Slot) -> list[str]:
    return [entry.key for entry in found.take(slot, lambda _: True)]


def done(found: Scheduler, key: str, worker: str) -> None:
    found.end(key, StageState.DONE, worker)


def test_the_longest_comes_first_and_what_finishes_a_cell_before_what_begins_one() -> None:
    found = scheduler({"short": 1.0, "long": 9.0})
    assert taken(found, A) == ["long"]
    done(found, "long", "a")
    assert taken(found, A) == ["ask-long"]


def test_ready_stages_are_taken_by_how_deep_their_kind_is_in_the_chain() -> None:
    stages = {kind.value: stage(kind.value, kind, worker=WorkerKind.MODEL) for kind in StageKind}
    groups = Groups({key: key for key in stages}, {}, {}, {}, {})
    everybody = Slot("all", WorkerKind.MODEL, is_all=True)
    seconds = {kind.value: 100.0 / depth for depth, kind in enumerate(StageKind, 1)}
    found = Scheduler(stages, frozenset(), seconds, groups, (everybody,))
    order = [taken(found, everybody) for _ in stages]
    assert order == [["judge"], ["screen"], ["generate"], ["weights"], ["tune"], ["rows"], ["sample"]]


def test_a_worker_begins_new_work_before_it_takes_what_another_is_warm_for() -> None:
    found = scheduler({"short": 1.0, "long": 9.0})
    assert taken(found, A) == ["long"]
    done(found, "long", "a")
    assert taken(found, B) == ["short"]
    assert taken(found, C) == ["ask-long"]


def test_a_worker_prefers_what_it_is_warm_for_and_an_idle_one_takes_it_away() -> None:
    found = scheduler({"long": 2.0, "ask-long": 5.0, "ask-short": 1.0})
    assert (taken(found, B), taken(found, A)) == (["long"], ["short"])
    done(found, "short", "a")
    done(found, "long", "b")
    assert taken(found, A) == ["ask-short"]
    assert taken(found, C) == ["ask-long"]
    assert taken(found, B) == []


# ------------------------------------------------------------------------------------------------------ who runs what


@pytest.mark.parametrize(
    ("slot", "runs"),
    [
        (Slot("m", WorkerKind.MODEL), {"model judge", "generate"}),
        (Slot("c", WorkerKind.CPU), {"sample", "judge"}),
        (Slot("x", None, "lab"), {"lab generate", "lab judge"}),
        (Slot("y", None, "lab", frozenset({StageKind.JUDGE})), {"lab judge"}),
        (Slot("m", WorkerKind.MODEL, kinds=frozenset({StageKind.GENERATE})), {"generate"}),
        (
            Slot("z", WorkerKind.MODEL, is_all=True),
            {"model judge", "generate", "sample", "judge", "lab generate", "lab judge", "home judge"},
        ),
    ],
    ids=["model", "cpu", "account", "account, of some kinds", "model, of some kinds", "all"],
)
def test_a_slot_takes_what_is_for_its_worker_or_of_its_account(slot: Slot, runs: set[str]) -> None:
    work = [
        stage("sample", StageKind.SAMPLE),
        stage("generate", StageKind.GENERATE),
        stage("judge", StageKind.JUDGE),
        stage("model judge", StageKind.JUDGE, worker=WorkerKind.MODEL),
        stage("lab generate", StageKind.GENERATE),
        stage("lab judge", StageKind.JUDGE),
        stage("home judge", StageKind.JUDGE),
    ]
    accounts = {entry.key: account for entry in work if (account := entry.key.split()[0]) in {"lab", "home"}}
    stages = {entry.key: entry for entry in work}
    groups = Groups({key: key for key in stages}, {}, {}, {}, {}, accounts)
    found = Scheduler(stages, frozenset(), {}, groups, (slot,))
    assert {key for _ in stages for key in taken(found, slot)} == runs


def test_nobody_is_warm_for_answers_of_a_model_that_an_account_tuned() -> None:
    lab, other = (Slot(name, None, "lab") for name in ("lab 1", "lab 2"))
    accounts = dict.fromkeys(("short", "long", "ask-short", "ask-long"), "lab")
    found = scheduler({"short": 9.0, "ask-short": 9.0}, lab, other, accounts=accounts)
    assert (taken(found, lab), taken(found, other)) == (["short"], ["long"])
    done(found, "short", "lab 1")
    done(found, "long", "lab 2")
    assert taken(found, other) == ["ask-short"], "the longest first, whoever tuned it"


def test_the_cpu_worker_judges_and_no_model_worker_does() -> None:
    found = scheduler({"short": 9.0})
    for key in ("short", "ask-short"):
        assert taken(found, A) == [key]
        done(found, key, "a")
    assert taken(found, A) == ["long"]
    assert taken(found, B) == []
    assert taken(found, CPU) == ["grade-short"]


# ------------------------------------------------------------------------------------------------------- stage batches


def test_stages_of_a_group_go_together_up_to_a_share_of_what_the_group_has_left() -> None:
    one_group = dict.fromkeys(("short", "long"), "tune")
    few = scheduler({"short": 0.2, "long": 0.5}, A, groups=one_group)
    assert taken(few, A) == ["long", "short"], "so little is not worth two batches"
    much = scheduler({"short": 20.0, "long": 30.0}, A, B, groups=one_group)
    assert taken(much, A) == ["long"], "the other worker gets the rest"
    very_much = scheduler({"short": 3 * LARGE_SECONDS, "long": LARGE_SECONDS}, A, groups=one_group)
    assert taken(very_much, A) == ["short", "long"], "however long they take, they train in one pack"


@pytest.mark.parametrize(("is_packing", "first"), [(True, 2), (False, 1)])
def test_long_training_runs_are_shared_by_all_workers(is_packing: bool, first: int) -> None:  # noqa: FBT001 - of a table
    """Four long runs and four short ones: by number, one worker would get all of the long ones."""
    stages = {
        key: stage(key, StageKind.TUNE)
        for key in (*(f"long-{at}" for at in range(4)), *(f"short-{at}" for at in range(4)))
    }
    seconds = {key: 700.0 if key.startswith("long") else 150.0 for key in stages}
    groups = Groups(dict.fromkeys(stages, "tune"), {}, {}, {}, {})
    found = Scheduler(stages, frozenset(), seconds, groups, (A, B), is_packing=is_packing)
    one, other = taken(found, A), taken(found, B)
    assert [len(one), len(other)] == [first, 1]
    free = {"a": 0.0, "b": 0.0}  # when each is idle again
    for slot, batch in ((A, one), (B, other)):
        free[slot.name] = sum(seconds[key] for key in batch)
    while batch := taken(found, min((A, B), key=lambda slot: free[slot.name])):
        free[min(free, key=lambda name: free[name])] += sum(seconds[key] for key in batch)
    assert max(free.values()) <= 2000


def test_slots_that_do_not_run_a_group_do_not_take_a_share_of_it() -> None:
    one_group = dict.fromkeys(("short", "long"), "tune")
    for other in (CPU, Slot("x", None, "lab"), Slot("b", WorkerKind.MODEL, kinds=frozenset({StageKind.GENERATE}))):
        found = scheduler({"short": 20.0, "long": 30.0}, A, other, groups=one_group)
        assert taken(found, A) == ["long", "short"]


def test_answers_do_not_wait_for_more_than_minutes_of_others() -> None:
    found = scheduler(
        {"ask-short": 2 * LARGE_SECONDS, "ask-long": LARGE_SECONDS}, A, groups={"ask-short": "g", "ask-long": "g"}
    )
    for key in (*taken(found, A), *taken(found, A)):
        done(found, key, "a")
    assert taken(found, A) == ["ask-short"]


def test_the_checkpoints_of_a_training_run_are_one_piece_of_work() -> None:
    found = scheduler({"short": 20.0, "long": 30.0}, A, B, short="short long", long="short long")
    assert taken(found, A) == ["short", "long"]
    assert taken(found, B) == []


def test_what_the_budget_refuses_stays_where_it_is() -> None:
    found = scheduler({"short": 0.2, "long": 0.5}, A, groups=dict.fromkeys(("short", "long"), "tune"))
    assert [entry.key for entry in found.take(A, lambda entry: entry.key == "long")] == ["long"]
    assert found.state("short") is StageState.PENDING
    assert taken(found, A) == ["short"]


def test_what_saw_a_worker_die_gets_no_company_any_more() -> None:
    found = scheduler({"short": 0.2, "long": 0.5}, A, groups=dict.fromkeys(("short", "long"), "tune"))
    for key in taken(found, A):
        found.release(key)
    assert taken(found, A) == ["long"]


def test_a_failure_skips_everything_behind_it_and_nothing_else() -> None:
    found = scheduler({"short": 1.0})
    assert taken(found, A) == ["short"]
    assert found.end("short", StageState.FAILED, "a") == ("ask-short", "grade-short")
    assert found.state("ask-long") is StageState.PENDING


def test_an_illegal_step_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot go from pending to failed"):
        scheduler({}).end("short", StageState.FAILED, "a")
