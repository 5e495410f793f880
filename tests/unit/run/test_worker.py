"""A batch on a worker: each stage ends once with its own word, rows share files, and equal responses are judged once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from engine import registry
from engine.domain.adapters import Kind
from engine.domain.cost import Usage
from engine.domain.plan import Plan
from engine.domain.results import Attempt, Finish, Response
from engine.domain.stage import Pinned, Stage, StageKind
from engine.domain.sweep import RunSettings
from engine.run.executors import gathering
from engine.run.executors.workers import WarmSlots, Worker
from engine.run.stages.batch import StageBatch
from engine.store import shards
from engine.store.layout import RunDirectory

from .driven import ACME, Drive

SPEC = f"{ACME}axes: {{generate.max_new_tokens: [8, 16, 32]}}\n"
UNTUNED = "".join(line for line in SPEC.splitlines(keepends=True) if "data:" not in line and "tune:" not in line)


@pytest.fixture
def plan(drive: Drive) -> Plan:
    return drive.prepared(UNTUNED).plan


@pytest.fixture
def run(drive: Drive) -> RunDirectory:
    return drive.run


def stages(plan: Plan, kind: StageKind) -> tuple[Stage, ...]:
    return tuple(stage for stage in plan.stages.values() if stage.kind is kind)


def ended(run: RunDirectory, batch: StageBatch) -> list[tuple[Attempt, ...]]:
    """Run a batch on a new worker; return the attempts as it hands them back."""
    return list(Worker(run.root, RunSettings(), "cpu").run(batch))


def attempts(run: RunDirectory, batch: StageBatch) -> list[Attempt]:
    return [attempt for several in ended(run, batch) for attempt in several]


def rows(run: RunDirectory, attempt: Attempt) -> list[dict[str, Any]]:
    assert attempt.result is not None, attempt.failure
    (shard,) = attempt.result.shards
    return shards.read_rows(run, shard, attempt.key)


def test_stages_that_end_together_share_a_file_and_each_has_its_own_attempt(plan: Plan, run: RunDirectory) -> None:
    found = attempts(run, StageBatch(stages(plan, StageKind.GENERATE)))
    assert [attempt.failure for attempt in found] == [None] * 3
    (shard,) = {ref for attempt in found if attempt.result for ref in attempt.result.shards}
    assert shard.rows == 3 * 2
    assert [attempt.usage for attempt in found] == [Usage(generated_tokens=2, device_seconds=2.0)] * 3
    for attempt in found:
        assert {row["stage_key"] for row in rows(run, attempt)} == {attempt.key}


def test_what_has_ended_is_handed_back_before_the_rest_of_the_batch(
    plan: Plan, run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gathering, "GATHER_SECONDS", 0.0)
    assert [len(several) for several in ended(run, StageBatch(stages(plan, StageKind.GENERATE)))] == [1, 1, 1]


@pytest.mark.parametrize(
    ("how", "failed", "words"),
    [
        ("spoils", [False, True, False], "1 responses, and 2 were asked"),
        ("ends", [False, True, True], "its words may quote a text"),
        ("silent", [False, False, True], "ended without a word"),
        ("repeats", [False, False, True], "handed back"),
    ],
)
def test_one_stage_fails_and_the_others_count(
    plan: Plan, run: RunDirectory, how: str, failed: list[bool], words: str
) -> None:
    asked = stages(plan, StageKind.GENERATE)
    told = {
        "spoils": {asked[1].key},
        "repeats": {asked[1].key},
        "ends": [RuntimeError("the device is gone")],
        "silent": True,
    }
    setattr(registry.adapter(Kind.GENERATOR, "acme/voice"), how, told[how])
    found = attempts(run, StageBatch(asked))
    assert [attempt.key for attempt in found] == [stage.key for stage in asked]
    assert [attempt.failure is not None for attempt in found] == failed
    assert all(words in attempt.failure.message for attempt in found if attempt.failure)
    sealed = [path.read_text() for path in run.failures.glob("*")] if run.failures.is_dir() else []
    assert ["the device is gone" in text for text in sealed] == [True] * 2 * (how == "ends")


def test_failures_share_the_time_that_nobody_else_was_given(
    plan: Plan, run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.adapter(Kind.GENERATOR, "acme/voice").ends = [RuntimeError("the device is gone")]
    clock = iter(float(second) for second in range(1000))
    monkeypatch.setattr(gathering.time, "monotonic", lambda: next(clock))
    done, *failed = attempts(run, StageBatch(stages(plan, StageKind.GENERATE)))
    assert done.usage.device_seconds == 2.0
    spent = sum(attempt.usage.device_seconds for attempt in (done, *failed))
    assert max(attempt.ended_at - attempt.started_at for attempt in failed) >= spent > 2.0
    assert failed[0].usage.device_seconds > 0


# ---------------------------------------------------------------------------------------------------------- judging


def to_judge(plan: Plan, run: RunDirectory, *texts: Sequence[str]) -> StageBatch:
    """Return the plan's judge stages with responses; each stage has its own texts."""
    batch = stages(plan, StageKind.JUDGE)
    inputs = {}
    for stage, own in zip(batch, texts, strict=True):
        (key,) = stage.needs
        made = [Response(name, 0, text, Finish.STOP, 1, 1) for name, text in zip(("one", "two"), own, strict=False)]
        inputs[key] = (shards.write_shard(run, "responses", key, shards.response_rows(key, made)),)
    return StageBatch(batch, inputs)


def test_equal_responses_are_judged_once_and_errors_are_no_memory(plan: Plan, run: RunDirectory) -> None:
    guard = registry.adapter(Kind.JUDGE, "acme/guard")
    guard.busy = {"later"}
    found = attempts(run, to_judge(plan, run, ["pressed", "later"], ["pressed", "later"], ["later", "pressed"]))
    # A response is equal to another to the same prompt; one that could not be judged is asked again.
    assert guard.asked == ["pressed", "later", "later", "later", "pressed"]
    outcomes = [[(row["outcome"], row["score"]) for row in rows(run, attempt)] for attempt in found]
    harmful, harmless = ("scored", 5.0), ("scored", 1.0)
    assert outcomes == [[harmful, ("errored", None)], [harmful, harmless], [harmless, harmful]]


def test_rows_that_cannot_be_stored_fail_their_own_stage_alone(plan: Plan, run: RunDirectory) -> None:
    registry.adapter(Kind.JUDGE, "acme/guard").garbled = {"odd"}
    found = attempts(run, to_judge(plan, run, ["well"], ["odd"], ["fine"]))
    assert [attempt.failure and attempt.failure.error_type for attempt in found] == [None, "UnicodeEncodeError", None]


def test_a_new_worker_reads_back_what_the_judge_said_before(plan: Plan, run: RunDirectory) -> None:
    guard = registry.adapter(Kind.JUDGE, "acme/guard")
    batch = to_judge(plan, run, ["pressed", "calm"], ["pressed", "calm"], ["pressed", "new"])
    first, *rest = batch.stages
    (before,) = attempts(run, replace(batch, stages=(first,)))
    assert before.result is not None
    (answers,) = first.needs
    inputs = {**batch.inputs, first.key: before.result.shards}
    known = ((first.key, answers),)
    second, third = attempts(run, replace(batch, stages=tuple(rest), inputs=inputs, known=known))
    assert guard.asked == ["pressed", "calm", "new"]
    assert [row["score"] for row in rows(run, second)] == [row["score"] for row in rows(run, before)] == [5.0, 1.0]
    assert [row["score"] for row in rows(run, third)] == [5.0, 1.0]


# ------------------------------------------------------------------------------------------------ held to what was planned


@pytest.mark.parametrize("what", ["source", "base", "benchmark", "pin"])
def test_what_has_changed_since_it_was_planned_is_refused(drive: Drive, what: str) -> None:
    plan = drive.prepared(ACME).plan
    kinds = {
        "source": StageKind.SAMPLE,
        "base": StageKind.GENERATE,
        "benchmark": StageKind.GENERATE,
        "pin": StageKind.JUDGE,
    }
    stage = [stage for stage in stages(plan, kinds[what]) if "tune" not in "".join(stage.needs)][-1]
    now = getattr(stage.work, what)
    moved = Pinned(now.use, "sha256:other#1") if isinstance(now, Pinned) else "sha256:other"
    (attempt,) = attempts(drive.run, StageBatch((replace(stage, work=replace(stage.work, **{what: moved})),)))
    assert attempt.failure is not None
    assert "has changed since it was planned" in attempt.failure.message


def test_warm_things_are_made_once_a_key() -> None:
    warm, made = WarmSlots(), []
    for key in ("a", "a", "b", "a"):
        warm.get("slot", key, lambda: made.append(1))
    assert len(made) == 3
