"""Judge stages: equal responses are judged once, by a judge that runs here or by asking a hosted model."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from engine import registry
from engine.domain.adapters import Kind, Use
from engine.domain.cost import Usage
from engine.domain.results import SCALES, Response, Verdict
from engine.domain.stage import JudgeWork, Stage
from engine.ports import ApiJudge, Context, Judge
from engine.ports.account import Account
from engine.ports.provider_errors import ProviderError
from engine.run.stages import inputs
from engine.run.stages.answers import response, responses_of, verdicts
from engine.run.stages.asking import GradingTask, judged, unjudged
from engine.run.stages.batch import Ended, Judgement, Made, Place, StageBatch, each, work_of
from engine.store import shards
from engine.store.layout import RunDirectory

VERDICTS_KEPT = 500_000
"""Verdicts that a worker remembers per judge and benchmark, so that equal responses are judged once."""


def judge(batch: StageBatch, place: Place) -> Ended:
    """Judge the stages of a batch, which have one judge and one benchmark."""
    adapter = registry.adapter(Kind.JUDGE, batch.stages[0].adapter)
    account = place.context.account
    if account is not None and isinstance(adapter, ApiJudge):
        return _judge_by_asking(adapter, account, batch, place)
    return each(_judge_here)(batch, place)


def _judge_here(stage: Stage, batch: StageBatch, place: Place) -> Made:
    task = _task(stage, batch, place)
    given = _given(stage, batch, place)
    usage = _have_judged(registry.adapter(Kind.JUDGE, stage.adapter), task, given, place.context)
    return _judgement(task, given, usage)


def _judge_by_asking(judge: ApiJudge, account: Account, batch: StageBatch, place: Place) -> Ended:
    """Have the whole batch judged at once: thousands of requests wait together."""
    tasks = {}
    for stage in batch.stages:
        try:
            tasks[stage.key] = _task(stage, batch, place)
        except Exception as error:  # noqa: BLE001 - handed on; the others can be judged
            yield stage.key, error
    if tasks:
        given = _given(batch.stages[0], batch, place)
        for key, usage in judged(list(tasks.values()), judge, given, _same, account):
            yield key, usage if isinstance(usage, ProviderError) else _judgement(tasks[key], given, usage)


def _task(stage: Stage, batch: StageBatch, place: Place) -> GradingTask:
    work = work_of(stage, JudgeWork)
    inputs.judge_is_pinned(place.context.warm, work)
    prompts = {prompt.prompt_id: prompt for prompt in inputs.prompts(place.context.warm, work.benchmark)}
    return GradingTask(stage.key, work.use, responses_of(stage, batch, place), prompts)


def _given(stage: Stage, batch: StageBatch, place: Place) -> dict[bytes, Verdict]:
    """What the judge of a batch has said on this worker, or in earlier runs."""
    work = work_of(stage, JudgeWork)
    name = f"{stage.adapter} {stage.revision} {work.benchmark.pin}"
    slot = f"verdicts of {work.use} on {work.benchmark.use}"
    given: dict[bytes, Verdict] = place.context.warm.get(slot, name, dict)
    for judgement in batch.known if not given else ():
        _recall(given, place.run, judgement)
    while len(given) > VERDICTS_KEPT:
        given.pop(next(iter(given)))
    return given


def _judgement(task: GradingTask, given: Mapping[bytes, Verdict], usage: Usage) -> Made:
    found = [given[_same(answer)] for answer in task.responses]
    _on_scale(task.judge, found)
    return Made({"verdicts": shards.verdict_rows(task.key, task.responses, found)}, usage)


def _have_judged(judge: Judge, task: GradingTask, given: dict[bytes, Verdict], context: Context) -> Usage:
    """Have every response judged that has no verdict yet, equal ones once."""
    new = unjudged(task.responses, given, _same)
    if not new:
        return Usage()
    prompts = [task.prompts[answer.prompt_id] for answer in new.values()]
    found = judge.judge(task.judge.settings, prompts, list(new.values()), context)
    given.update(zip(new, found.verdicts, strict=True))
    return found.usage


def _same(answer: Response) -> bytes:
    """What makes two responses equal for a judge: the prompt and the text."""
    return hashlib.sha256(f"{answer.prompt_id}\0{answer.text}".encode("utf-8", "surrogatepass")).digest()[:16]


def _recall(given: dict[bytes, Verdict], run: RunDirectory, known: Judgement) -> None:
    """Take in what this judge said in an earlier run."""
    (answers,) = [ref for ref in known.responses if ref.table == "responses"]
    (said,) = [ref for ref in known.verdicts if ref.table == "verdicts"]
    texts = {
        (found.prompt_id, found.sample): found
        for found in map(response, shards.read_rows(run, answers, known.responses_key))
    }
    for place, verdict in verdicts(shards.read_rows(run, said, known.key)).items():
        given[_same(texts[place])] = verdict


def _on_scale(judge: Use, found: Sequence[Verdict]) -> None:
    measure = registry.adapter(Kind.JUDGE, judge.name).measures
    low, high = SCALES[measure]
    for verdict in found:
        if verdict.score is not None and not low <= verdict.score <= high:
            message = f"{judge} gave {verdict.score}; a judge of {measure.value} scores from {low:g} to {high:g}"
            raise ValueError(message)
