"""Judge stages: equal responses are judged once, by a judge that runs here or by asking a hosted model."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass

from engine import registry
from engine.domain.adapters import Kind, Use
from engine.domain.conversation import Prompt
from engine.domain.cost import Usage
from engine.domain.results import SCALES, Outcome, Response, Verdict
from engine.domain.stage import JudgeWork, Stage
from engine.ports import ApiJudge
from engine.ports.account import Account
from engine.ports.chat import Completion
from engine.ports.provider_errors import BlockedError, ProviderError, RejectedError
from engine.run.stages import inputs
from engine.run.stages.answers import place_of, responses_of, verdicts_of
from engine.run.stages.batch import Ended, Made, Place, StageBatch, each, work_of
from engine.store import shards

VERDICTS_KEPT = 500_000
"""Verdicts that a worker remembers per judge and benchmark, so that equal responses are judged once."""

Given = dict[bytes, Verdict]
"""Verdicts by what `same` returns."""


@dataclass(frozen=True, slots=True)
class GradingTask:
    """What one stage has to judge.

    Attributes:
        key: The stage's key.
        judge: The judge.
        responses: The responses.
        prompts: Their prompts, by id.
    """

    key: str
    judge: Use
    responses: Sequence[Response]
    prompts: Mapping[str, Prompt]

    def pairs(self, own: Mapping[bytes, Response]) -> tuple[list[Prompt], list[Response]]:
        """Return some of its responses, each with its prompt at the same place of the first list."""
        return [self.prompts[response.prompt_id] for response in own.values()], list(own.values())


def judge(batch: StageBatch, place: Place) -> Ended:
    """Judge the stages of a batch, which have one judge and one benchmark."""
    adapter = registry.adapter(Kind.JUDGE, batch.stages[0].adapter)
    account = place.context.account
    if account is not None and isinstance(adapter, ApiJudge):
        return _judge_by_asking(adapter, account, batch, place)
    return each(_judge_here)(batch, place)


def one_each(judge: str, verdicts: Sequence[Verdict], responses: int) -> Sequence[Verdict]:
    """Return a judge's verdicts, one a response.

    Raises:
        ValueError: There are more or fewer.
    """
    if len(verdicts) != responses:
        raise ValueError(f"`{judge}` gave {len(verdicts):,} verdicts for {responses:,} responses")
    return verdicts


def _judge_here(stage: Stage, batch: StageBatch, place: Place) -> Made:
    """Have every response judged that has no verdict yet, equal ones once."""
    task, given = _task(stage, batch, place), _given(stage, batch, place)
    new, usage = _unjudged(task.responses, given), Usage()
    if new:
        adapter = registry.adapter(Kind.JUDGE, stage.adapter)
        found = adapter.judge(task.judge.settings, *task.pairs(new), place.context)
        given.update(zip(new, one_each(stage.adapter, found.verdicts, len(new)), strict=True))
        usage = found.usage
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
        for key, usage in judged(list(tasks.values()), judge, given, account):
            yield key, usage if isinstance(usage, ProviderError) else _judgement(tasks[key], given, usage)


def _task(stage: Stage, batch: StageBatch, place: Place) -> GradingTask:
    work = work_of(stage, JudgeWork)
    inputs.judge_is_pinned(place.context.warm, work)
    prompts = {prompt.prompt_id: prompt for prompt in inputs.prompts(place.context.warm, work.benchmark)}
    return GradingTask(stage.key, work.use, responses_of(dict(stage.inputs)["responses"], batch, place), prompts)


def _given(stage: Stage, batch: StageBatch, place: Place) -> Given:
    """What the judge of a batch has said on this worker, or in earlier runs."""
    work = work_of(stage, JudgeWork)
    name = f"{stage.adapter} {stage.revision} {work.benchmark.pin}"
    slot = f"verdicts of {work.use} on {work.benchmark.use}"
    given: Given = place.context.warm.get(slot, name, dict)
    for key, responses in batch.known if not given else ():
        texts = {place_of(response): response for response in responses_of(responses, batch, place)}
        for where, verdict in verdicts_of(key, batch, place).items():
            given[same(texts[where])] = verdict
    while len(given) > VERDICTS_KEPT:
        given.pop(next(iter(given)))
    return given


def _judgement(task: GradingTask, given: Given, usage: Usage) -> Made:
    found = [given[same(answer)] for answer in task.responses]
    measure = registry.adapter(Kind.JUDGE, task.judge.name).measures
    low, high = SCALES[measure]
    for verdict in found:
        if verdict.score is not None and not low <= verdict.score <= high:
            raise ValueError(
                f"{task.judge} gave {verdict.score}; a judge of {measure.value} scores from {low:g} to {high:g}"
            )
    return Made({"verdicts": shards.verdict_rows(task.key, task.responses, found)}, usage)


def same(answer: Response) -> bytes:
    """Return what makes two responses equal for a judge: the prompt and the text."""
    return hashlib.sha256(f"{answer.prompt_id}\0{answer.text}".encode("utf-8", "surrogatepass")).digest()[:16]


def _unjudged(responses: Sequence[Response], given: Given) -> dict[bytes, Response]:
    """Return the responses that have no usable verdict, equal ones once; where the judge could not be asked, it may be now."""
    found = {same(response): response for response in responses}
    for key in found.keys() & given.keys():
        if given[key].outcome is Outcome.ERRORED:
            del given[key]
    return {key: response for key, response in found.items() if key not in given}


# ------------------------------------------------------------------------------------------------ judges that are asked


def judged(
    tasks: Sequence[GradingTask], judge: ApiJudge, given: Given, account: Account
) -> Iterator[tuple[str, Usage | ProviderError]]:
    """Have every response judged that has no verdict yet, and yield (key, usage) of each stage that has all of its own.

    A stage whose judge could not be asked gets the error, with what it used itself: what was answered is kept, and is not
    asked again. `given` is what the judge has said before; added to.
    """
    new = _shared_out(sorted(tasks, key=lambda task: not account.begun(task.key)), given)
    settings = tasks[0].judge.settings
    requests = {key: judge.requests(settings, *task.pairs(own)) for key, (task, own) in new.items() if own}
    waiting = {task.key: {same(response) for response in task.responses} for task in tasks}
    used = dict.fromkeys(waiting, Usage())
    broken: dict[str, ProviderError] = {}
    yield from _ready(waiting, given, used)
    for key, replies in account.complete_all(requests, urgent=True):
        task, own = new[key]
        used[key] = sum((_used(reply) for reply in replies), Usage())
        if (error := _unasked(replies)) is not None:
            broken[key] = error
            continue
        verdicts = judge.verdicts(settings, *task.pairs(own), replies)
        given.update(zip(own, one_each(task.judge.name, verdicts, len(own)), strict=True))
        yield from _ready(waiting, given, used)
    for key in waiting:  # whose verdicts, or those of another stage that it waits for, were not to be had
        yield key, _with_used(broken.get(key) or next(iter(broken.values())), used[key])


def _used(reply: Completion | ProviderError) -> Usage:
    """Return what a request used, or may have: one that failed too."""
    return reply.usage if isinstance(reply, Completion) else reply.used or Usage()


def _unasked(replies: Sequence[Completion | ProviderError]) -> ProviderError | None:
    """Return why a judge could not be asked; a refusal and a wrong request are answers of their own."""
    errors = (one for one in replies if isinstance(one, ProviderError))
    return next((one for one in errors if not isinstance(one, BlockedError | RejectedError)), None)


def _with_used(error: ProviderError, used: Usage) -> ProviderError:
    """Return an error as that of one stage: several may fail by the same, and each is charged what it used itself."""
    own = copy(error).with_traceback(error.__traceback__)
    own.used = used
    return own


def _shared_out(tasks: Sequence[GradingTask], given: Given) -> dict[str, tuple[GradingTask, dict[bytes, Response]]]:
    """Give each response that has no usable verdict to the first stage that has it; those that begun before come first."""
    taken: set[bytes] = set()
    shares = {}
    for task in tasks:
        new = _unjudged(task.responses, given)
        shares[task.key] = task, {key: response for key, response in new.items() if key not in taken}
        taken |= new.keys()
    return shares


def _ready(waiting: dict[str, set[bytes]], given: Given, used: Mapping[str, Usage]) -> Iterator[tuple[str, Usage]]:
    """Yield the stages of which everything is judged, once."""
    for key in [key for key, wanted in waiting.items() if wanted <= given.keys()]:
        del waiting[key]
        yield key, used[key]
