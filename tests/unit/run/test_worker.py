"""A bundle on a host: each stage ends once with its own word, rows share files, and equal responses are judged once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from engine import registry
from engine.domain.adapters import Kind
from engine.domain.cost import Usage
from engine.domain.results import Attempt, Finish, Measure, Outcome, Prompt, Response, Verdict
from engine.domain.stage import Plan, Stage, StageKind
from engine.plan.build import build
from engine.plan.catalogue import Catalogue
from engine.ports import Context, Generated, GenerateTask, Judged
from engine.run.executors import work
from engine.run.executors.work import WorkerSettings
from engine.run.executors.workers import WarmSlots, Worker
from engine.run.stages.runners import Bundle, Judgement
from engine.spec.expand import expand
from engine.spec.load import read_sweep
from engine.store import shards
from engine.store.layout import RunDirectory

SPEC = b"""\
sweep: worked
recipe: {model: standin/aligned, benchmark: "standin/policy:1", judges: [standin/rules]}
axes: {generate.max_new_tokens: [8, 16, 32]}
"""


PROMPTS = sorted(prompt.prompt_id for prompt in registry.adapter(Kind.BENCHMARK, "standin/policy:1").prompts("1"))


@pytest.fixture(scope="module")
def plan() -> Plan:
    loaded = read_sweep(SPEC, "worked.yaml")
    expansion = expand(loaded.sweep, loaded.positions)
    return build(loaded.sweep, expansion.cells, expansion.counts, Catalogue())


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory(tmp_path / "run")


@pytest.fixture
def instead(monkeypatch: pytest.MonkeyPatch) -> Callable[[Kind, Any], None]:
    """Put an adapter of the test in the place of every adapter of a kind."""

    def put(kind: Kind, adapter: Any) -> None:
        real = registry.adapter
        monkeypatch.setattr(registry, "adapter", lambda wanted, ref: adapter if wanted is kind else real(wanted, ref))

    return put


def stages(plan: Plan, kind: StageKind) -> tuple[Stage, ...]:
    return tuple(stage for stage in plan.stages.values() if stage.kind is kind)


def host(run: RunDirectory) -> Worker:
    return Worker("worker", WorkerSettings(run.root, "cpu", 1, 8))


def attempts(run: RunDirectory, bundle: Bundle) -> list[Attempt]:
    return [attempt for several in host(run).run(bundle) for attempt in several]


class Parrot:
    """Answers every prompt with its own text, but for tasks that it was told to spoil."""

    revision = 1

    def __init__(self, spoil: str = "", *, silent: bool = False, raises: bool = False) -> None:
        self.spoil, self.silent, self.raises = spoil, silent, raises

    def generate(self, tasks: Sequence[GenerateTask], context: Context) -> Iterator[tuple[str, Generated | Exception]]:
        assert context.generate_batch == 8
        for task in tasks[: -1 if self.silent else None]:
            made = [Response(prompt.prompt_id, 0, prompt.text, Finish.STOP, 3, 1) for prompt in task.prompts]
            wrong = made[1:] if task.key == self.spoil else made
            yield task.key, Generated(wrong, Usage(generated_tokens=len(wrong), device_seconds=2.0))
            if self.raises:
                raise RuntimeError("the device is gone")


def test_stages_that_end_together_share_a_file_and_each_has_its_own_attempt(
    plan: Plan, run: RunDirectory, instead: Callable[[Kind, Any], None]
) -> None:
    instead(Kind.GENERATOR, Parrot())
    found = attempts(run, Bundle(stages(plan, StageKind.GENERATE)))
    assert [attempt.failure for attempt in found] == [None] * 3
    (shard,) = {ref for attempt in found if attempt.result for ref in attempt.result.shards}
    assert shard.rows == 33
    assert [attempt.usage for attempt in found] == [Usage(generated_tokens=11, device_seconds=2.0)] * 3
    for attempt in found:
        assert {row["stage_key"] for row in shards.read_rows(run, shard, attempt.key)} == {attempt.key}


def test_what_has_ended_is_handed_back_before_the_rest_of_the_bundle(
    plan: Plan, run: RunDirectory, instead: Callable[[Kind, Any], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    instead(Kind.GENERATOR, Parrot())
    monkeypatch.setattr(work, "GATHER_SECONDS", 0.0)
    assert [len(several) for several in host(run).run(Bundle(stages(plan, StageKind.GENERATE)))] == [1, 1, 1]


@pytest.mark.parametrize(
    ("how", "failed", "words"),
    [
        ({"spoil": "second"}, [False, True, False], "10 responses, and 11 were asked"),
        ({"raises": True}, [False, True, True], "the device is gone"),
        ({"silent": True}, [False, False, True], "ended without a word"),
    ],
)
def test_one_stage_fails_and_the_others_count(
    plan: Plan,
    run: RunDirectory,
    instead: Callable[[Kind, Any], None],
    how: dict[str, Any],
    failed: list[bool],
    words: str,
) -> None:
    asked = stages(plan, StageKind.GENERATE)
    instead(Kind.GENERATOR, Parrot(**({"spoil": asked[1].key} if "spoil" in how else how)))
    found = attempts(run, Bundle(asked))
    assert [attempt.key for attempt in found] == [stage.key for stage in asked]
    assert [attempt.failure is not None for attempt in found] == failed
    assert all(words in attempt.failure.message for attempt in found if attempt.failure)


class Clerk:
    """Counts what it is asked, and cannot be asked about `busy` the first time."""

    revision = 1
    measures = Measure.HARM

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []

    def judge(self, prompts: Sequence[Prompt], responses: Sequence[Response], context: Context) -> Judged:
        del prompts, context
        again = {text for _, text in self.asked}
        self.asked += [(response.prompt_id, response.text) for response in responses]
        return Judged([self._verdict(response.text, again) for response in responses], Usage())

    @staticmethod
    def _verdict(text: str, again: set[str]) -> Verdict:
        if text == "busy" and text not in again:
            return Verdict(Outcome.ERRORED, None, "try later")
        return Verdict(Outcome.SCORED, 1.0 if text == "no" else 5.0, text)


def judged(plan: Plan, run: RunDirectory, texts: Sequence[str]) -> Bundle:
    """The plan's judge stages, each to judge the same texts."""
    prompts = PROMPTS[: len(texts)]
    inputs = {}
    for stage in stages(plan, StageKind.JUDGE):
        made = [Response(name, 0, text, Finish.STOP, 1, 1) for name, text in zip(prompts, texts, strict=True)]
        rows = shards.response_rows(stage.inputs[0], made)
        inputs[stage.inputs[0]] = (shards.write_shard(run, "responses", stage.inputs[0], rows),)
    return Bundle(stages(plan, StageKind.JUDGE), inputs)


def test_equal_responses_are_judged_once_and_errors_are_no_memory(
    plan: Plan, run: RunDirectory, instead: Callable[[Kind, Any], None]
) -> None:
    clerk = Clerk()
    instead(Kind.JUDGE, clerk)
    bundle = judged(plan, run, ["no", "no", "yes", "busy"])
    found = attempts(run, bundle)
    assert len(clerk.asked) == 5, "four distinct (prompt, response) pairs, of which one had to be asked again"
    outcomes = []
    for attempt in found:
        assert attempt.result is not None
        (shard,) = attempt.result.shards
        outcomes.append([row["outcome"] for row in shards.read_rows(run, shard, attempt.key)])
    assert outcomes == [["scored", "scored", "scored", "errored"], ["scored"] * 4, ["scored"] * 4]


def test_rows_that_cannot_be_stored_fail_their_own_stage_alone(
    plan: Plan, run: RunDirectory, instead: Callable[[Kind, Any], None]
) -> None:
    class Rude(Clerk):
        @staticmethod
        def _verdict(text: str, again: set[str]) -> Verdict:
            del again
            return Verdict(Outcome.SCORED, 1.0, "\ud800" if text == "yes" else "")  # half a character

    instead(Kind.JUDGE, Rude())
    bundle = judged(plan, run, ["no"])
    last = bundle.stages[-1].inputs[0]
    rows = shards.response_rows(last, [Response(PROMPTS[0], 0, "yes", Finish.STOP, 1, 1)])
    inputs = dict(bundle.inputs) | {last: (shards.write_shard(run, "responses", last, rows),)}
    found = attempts(run, Bundle(bundle.stages, inputs))
    assert [attempt.failure is None for attempt in found] == [True, True, False]
    assert found[-1].failure is not None
    assert found[-1].failure.error_type == "UnicodeEncodeError"


def test_failures_share_the_time_that_nobody_else_was_given(
    plan: Plan, run: RunDirectory, instead: Callable[[Kind, Any], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    instead(Kind.GENERATOR, Parrot(raises=True))
    clock = iter(float(second) for second in range(1000))
    monkeypatch.setattr(work.time, "monotonic", lambda: next(clock))
    done, *failed = attempts(run, Bundle(stages(plan, StageKind.GENERATE)))
    assert done.usage.device_seconds == 2.0
    spent = sum(attempt.usage.device_seconds for attempt in (done, *failed))
    assert max(attempt.ended_at - attempt.started_at for attempt in failed) >= spent > 2.0
    assert failed[0].usage.device_seconds > 0


def test_a_new_desk_reads_back_what_the_judge_said_before(
    plan: Plan, run: RunDirectory, instead: Callable[[Kind, Any], None]
) -> None:
    clerk = Clerk()
    instead(Kind.JUDGE, clerk)
    bundle = judged(plan, run, ["no", "yes"])
    first, *rest = bundle.stages
    (before,) = attempts(run, Bundle((first,), bundle.inputs))
    assert before.result is not None
    answers = first.inputs[0]
    known = Judgement(first.key, before.result.shards, answers, bundle.inputs[answers])
    attempts(run, Bundle(tuple(rest), bundle.inputs, known=(known,)))
    assert len(clerk.asked) == 2


def test_a_benchmark_that_has_changed_since_it_was_planned_is_refused(plan: Plan, run: RunDirectory) -> None:
    from dataclasses import replace

    stage, *_ = stages(plan, StageKind.GENERATE)
    moved = replace(stage, binding=replace(stage.binding, benchmark_pin="sha256:other#1"))
    (attempt,) = attempts(run, Bundle((moved,)))
    assert attempt.failure is not None
    assert "has changed since it was planned" in attempt.failure.message


def test_warm_things_are_made_once_a_key() -> None:
    warm, made = WarmSlots(), []
    for key in ("a", "a", "b", "a"):
        warm.get("slot", key, lambda: made.append(1))
    assert len(made) == 3
