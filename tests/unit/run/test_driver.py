"""What the driver makes of stages and workers that end in the same moment, of interrupts, and of what was bought by then."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from engine import registry
from engine.domain.adapters import Kind
from engine.domain.cost import Usage
from engine.domain.results import Attempt, Failure
from engine.domain.stage import StageKind, StageState
from engine.domain.sweep import RunSettings
from engine.ports import Fit
from engine.run.drive import prepare
from engine.run.drive.driver import WORKER_DEATHS, told
from engine.run.drive.interrupts import FIRST
from engine.run.drive.order import Ending
from engine.run.executors import gathering, workers
from engine.run.executors.workers import INLINE, Executor, InlineExecutor, WorkerLost
from engine.run.stages.batch import StageBatch
from engine.store.state import State

from .driven import ACME, Drive

UNTUNED = "".join(line for line in ACME.splitlines(keepends=True) if "data:" not in line and "tune:" not in line)
THREE = UNTUNED + "axes: {generate.system: [one, two, three]}\n"
HOSTED = f"""\
{UNTUNED.replace("acme/clay", "acme/cloud:m").replace("acme/voice", "acme/cloud")}run:
  accounts: {{ours: {{provider: acme/cloud, key_env: NO_KEY_IS_NEEDED}}}}
"""


class Dying(InlineExecutor):
    """Hands back the first attempts and reports its own death in the same moment, once."""

    dead = False

    def poll(self, timeout: float) -> list[Attempt | WorkerLost]:
        ended = super().poll(timeout)
        if self.dead or not ended:
            return ended
        self.dead, self._under_way = True, iter(())
        return [*ended, WorkerLost(INLINE, (INLINE,), "killed")]


class KilledError(BaseException):
    """What ends a worker."""


class Mortal(InlineExecutor):
    """Reports the death of its worker."""

    def poll(self, timeout: float) -> list[Attempt | WorkerLost]:
        try:
            return super().poll(timeout)
        except KilledError:
            return [WorkerLost(INLINE, (INLINE,), "killed")]


class Interrupted(InlineExecutor):
    """Whoever runs it presses Ctrl-C once a stage that says how far it is has begun, or asks at an account."""

    pressed = False
    says = "tune"

    def submit(self, worker: str, batch: StageBatch) -> None:
        super().submit(worker, batch)
        if batch.account is not None:
            self._press()

    def progress(self) -> Mapping[str, float]:
        shares = super().progress()
        if any(share for key, share in shares.items() if key.startswith(self.says)):
            self._press()
        return shares

    def _press(self) -> None:
        if not self.pressed:
            self.pressed = True
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize(("gather", "attempts"), [(0.0, [1, 2, 2]), (9.0, [1, 1, 1])])
def test_what_a_worker_handed_back_before_it_died_counts_once(
    drive: Drive, monkeypatch: pytest.MonkeyPatch, gather: float, attempts: list[int]
) -> None:
    monkeypatch.setattr(gathering, "GATHER_SECONDS", gather)
    summary, plan = drive(THREE, Dying)
    assert summary.ending is Ending.COMPLETE
    assert drive.notes == [f"{INLINE} died and was replaced: killed; what it was running is tried again"]
    tried = drive.attempts()
    keys = [cell.evaluations[0].generate for cell in plan.cells]
    assert sorted(tried[key] for key in keys) == attempts
    assert [len(drive.rows(key, "responses")) for key in keys] == [2, 2, 2]


def test_the_loss_of_a_machine_is_held_against_a_stage_the_second_time(drive: Drive) -> None:
    class OutOfReach(Mortal):
        def poll(self, timeout: float) -> list[Attempt | WorkerLost]:
            return [
                replace(one, is_out_of_reach=True) if isinstance(one, WorkerLost) else one
                for one in super().poll(timeout)
            ]

    registry.adapter(Kind.GENERATOR, "acme/voice").ends = [KilledError() for _ in range(WORKER_DEATHS)]
    assert drive(UNTUNED, OutOfReach)[0].ending is Ending.COMPLETE
    assert drive.notes[0].endswith("killed; what it was running is tried again")
    registry.refresh()
    registry.adapter(Kind.GENERATOR, "acme/voice").ends = [KilledError() for _ in range(WORKER_DEATHS + 1)]
    assert drive(UNTUNED + "axes: {generate.max_new_tokens: [9]}\n", OutOfReach)[0].failed == 1


def test_a_stage_with_which_workers_keep_dying_fails(drive: Drive) -> None:
    registry.adapter(Kind.GENERATOR, "acme/voice").ends = [KilledError(), KilledError(), KilledError()]
    summary, _ = drive(UNTUNED, Mortal)
    assert (summary.ending, summary.failed, summary.skipped) == (Ending.FAILURES, 1, 1)
    assert drive.notes[-1].endswith("for `the recipe`: WorkerDiedError: 3 workers died running it: killed")


@pytest.mark.parametrize(("cuts", "failed"), [(3, 0), (2, 1)])
def test_a_death_for_want_of_memory_counts_when_nothing_is_left_to_cut(
    drive: Drive, monkeypatch: pytest.MonkeyPatch, cuts: int, failed: int
) -> None:
    class Cramped(Mortal):
        def poll(self, timeout: float) -> list[Attempt | WorkerLost]:
            return [
                replace(one, is_out_of_memory=True) if isinstance(one, WorkerLost) else one
                for one in super().poll(timeout)
            ]

    monkeypatch.setattr(prepare, "stage_fits", lambda *given: {key: Fit(cuts=cuts) for key in given[-1]})
    registry.adapter(Kind.GENERATOR, "acme/voice").ends = [KilledError() for _ in range(2 + WORKER_DEATHS)]
    assert drive(UNTUNED, Cramped)[0].failed == failed


def test_an_interrupt_stops_what_says_how_far_it_is_and_the_same_command_goes_on(
    drive: Drive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "WATCH_SECONDS", 0.0)
    spec = f"{ACME}axes: {{tune.force: [1.0, 2.0], tune.epochs: [1, 9]}}\n"
    summary, plan = drive(spec, Interrupted)
    assert (summary.ending, summary.failed, drive.notes) == (Ending.INTERRUPTED, 0, [FIRST])
    tried = drive.attempts()
    tuned = [stage.key for stage in plan.stages.values() if stage.kind is StageKind.TUNE]
    assert [tried[key] for key in tuned] == [1] * 4, "those of the batch that had not begun are put back, too"
    with closing(State.peek(drive.run)) as state:
        states = Counter(found for (found,) in state.rows("SELECT state FROM attempts"))
        assert states["interrupted"] == 4
        assert state.planned_counts()["tune", "pending"] == 4
    summary, _ = drive(spec)
    assert (summary.ending, summary.cached) == (Ending.COMPLETE, states["done"])
    assert {drive.attempts()[key] for key in tuned} == {2}


def test_an_interrupt_ends_a_batch_of_answers_behind_the_one_that_is_being_given(
    drive: Drive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "WATCH_SECONDS", 0.0)

    class Pressed(Interrupted):
        says = "generate"

    summary, plan = drive(THREE, Pressed)
    keys = [cell.evaluations[0].generate for cell in plan.cells]
    assert (summary.ending, summary.failed, summary.ran) == (Ending.INTERRUPTED, 0, 2)
    assert [drive.attempts()[key] for key in keys] == [1, 1, 1]
    assert drive(THREE)[0].ending is Ending.COMPLETE
    assert [drive.attempts()[key] for key in keys] == [1, 1, 2]


def test_an_interrupt_waits_for_what_an_account_was_asked(drive: Drive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_KEY_IS_NEEDED", "none")
    summary, plan = drive(HOSTED, Interrupted)
    assert (summary.ending, summary.ran, drive.attempts()) == (
        Ending.INTERRUPTED,
        1,
        {plan.cells[0].evaluations[0].generate: 1},
    )
    assert drive(HOSTED)[0].ending is Ending.COMPLETE


def test_an_interrupt_before_the_workers_are_there_is_heard_at_once(drive: Drive) -> None:
    before = signal.getsignal(signal.SIGINT)  # whoever else in this process may have set it

    def slowly(root: Path, settings: RunSettings) -> Executor:
        while signal.getsignal(signal.SIGINT) is before:
            time.sleep(0.01)  # until the driver listens
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1.0)
        return InlineExecutor(root, settings)

    summary, _ = drive(UNTUNED, slowly)
    assert (summary.ending, summary.ran) == (Ending.INTERRUPTED, 0)
    assert drive(UNTUNED)[0].ending is Ending.COMPLETE


def test_the_first_failure_ends_a_run_that_is_to_end_then(drive: Drive) -> None:
    spec = UNTUNED + "axes: {generate.max_new_tokens: [7, 8, 9]}\n"  # three groups: none is asked beside another
    first = drive.prepared(spec).plan.cells[0].evaluations[0].generate
    registry.adapter(Kind.GENERATOR, "acme/voice").spoils = {first}
    summary, _ = drive(spec, fail_fast=True)
    assert (summary.ending, summary.failed, summary.ran) == (Ending.FAILED_FAST, 1, 1)
    registry.refresh()
    summary, _ = drive(spec)
    assert (summary.ending, summary.ran) == (Ending.COMPLETE, 6)


def test_a_cap_stops_a_run_before_the_stage_that_could_pass_it(drive: Drive) -> None:
    spec = UNTUNED + "axes: {generate.max_new_tokens: [7, 8]}\n"
    needed = {ahead.expected.tokens for ahead in drive.prepared(spec).forecasts.values() if ahead.expected.tokens}
    assert needed == {2 + 2}, "two prompts of a word, and two answers of a token"
    summary, plan = drive(f"{spec}run: {{budget: {{tokens: 5}}}}\n")
    assert (summary.ending, summary.failed) == (Ending.BUDGET, 0)
    assert drive.notes == ["budget: the next stage could take the run to 6 tokens, over the cap of 5 tokens"], (
        "the first used two"
    )
    asked = drive.attempts().keys() & {cell.evaluations[0].generate for cell in plan.cells}
    assert len(asked) == 1


def test_what_was_held_back_and_not_used_is_there_for_the_next_stage(
    drive: Drive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_KEY_IS_NEEDED", "none")
    spec = HOSTED.replace("run:\n", "axes: {generate.system: [one, two]}\nrun:\n")
    plan = drive.prepared(spec).plan
    asked = [cell.evaluations[0].generate for cell in plan.cells]
    high = drive.prepared(spec).forecasts[asked[0]].high.tokens
    assert PAID.tokens < high
    summary, _ = drive(f"{spec}  budget: {{tokens: {PAID.tokens + high}}}\n")
    assert (summary.ending, drive.notes) == (Ending.COMPLETE, []), "though both at once could have passed the cap"
    assert [drive.attempts()[key] for key in asked] == [1, 1]


def test_what_a_judge_said_in_an_earlier_run_is_not_asked_again(drive: Drive) -> None:
    drive(UNTUNED)
    registry.refresh()  # and the worker of the next run is another one
    _, plan = drive(UNTUNED + "axes: {generate.max_new_tokens: [8, 9, 10]}\n")
    assert registry.adapter(Kind.JUDGE, "acme/guard").asked == [], "longer answers would be the same"
    scores = [
        [row["score"] for row in drive.rows(cell.evaluations[0].judges[0].key, "verdicts")] for cell in plan.cells
    ]
    assert scores == [[1.0, 1.0]] * 3


@pytest.mark.parametrize(
    ("cells", "named"),
    [
        ("seed: [0]", "`seed=0`"),
        ("generate.system: [a]", "`system=a`"),
        ("tune.force: [1.0, 2.0]", "`force=1` and another cell"),
        ("tune.force: [1.0, 2.0, 3.0]", "`force=1` and 2 more cells"),
    ],
)
def test_a_failure_is_told_by_its_work_its_cells_and_its_cause(drive: Drive, cells: str, named: str) -> None:
    plan = drive.prepared(f"{ACME}axes: {{{cells}}}\n").plan
    failure = Failure("OSError", "the disk is full", "")
    key = plan.cells[0].chain[0]
    assert told(plan, key, StageState.FAILED, failure) == (
        f"failed: sample by acme/letters for {named}: OSError: the disk is full"
    )


ENDINGS = {
    "failed": (ValueError("nobody heard of it"),),
    "interrupted": (KeyboardInterrupt(),),
    "its worker died": (KilledError(), KilledError(), KilledError()),
}
PAID = Usage(prompt_tokens=2 * 20, generated_tokens=2 * 5)


@pytest.mark.parametrize("how", ENDINGS)
def test_what_a_stage_bought_before_it_ended_is_booked_once_and_not_reserved_again(
    drive: Drive, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setenv("NO_KEY_IS_NEEDED", "none")
    registry.adapter(Kind.GENERATOR, "acme/cloud").ends = list(ENDINGS[how])
    _, plan = drive(HOSTED, Mortal)
    generate = plan.cells[0].evaluations[0].generate

    def books() -> list[Usage]:
        with closing(State.peek(drive.run)) as state:
            return [replace(used, device_seconds=0.0) for key, used, _ in state.charges() if key == generate]

    nothing = [Usage()] * (len(ENDINGS[how]) - 1)
    assert books() == [PAID, *nothing], "it asks again, and gets what was bought"
    high = drive.prepared(HOSTED).forecasts[generate].high.tokens
    capped = f"{HOSTED}  budget: {{tokens: {high}}}\n"
    registry.adapter(Kind.GENERATOR, "acme/cloud").ends = []
    assert drive(capped)[0].ending is Ending.COMPLETE
    assert sum(books(), Usage()) == PAID
