"""Judge stages whose judge asks a hosted model: all of a stage batch at once, equal responses once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass

from engine.domain.adapters import Use
from engine.domain.conversation import Prompt
from engine.domain.cost import Usage
from engine.domain.results import Outcome, Response, Verdict
from engine.ports import ApiJudge
from engine.ports.account import Account
from engine.ports.chat import Completion
from engine.ports.provider_errors import BlockedError, ProviderError, RejectedError

Given = dict[bytes, Verdict]
Same = Callable[[Response], bytes]


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


def judged(
    tasks: Sequence[GradingTask], judge: ApiJudge, given: Given, same: Same, account: Account
) -> Iterator[tuple[str, Usage | ProviderError]]:
    """Have every response judged that has no verdict yet, and yield (key, usage) of each stage that has all of its own.

    A stage whose judge could not be asked gets the error, with what it used itself: what was answered is kept, and is not
    asked again.

    Args:
        tasks: What each stage has to judge.
        judge: The judge.
        given: Verdicts by what makes responses equal; added to.
        same: Returns what makes responses equal.
        account: Whom to ask.
    """
    new = _shared_out(sorted(tasks, key=lambda task: not account.begun(task.key)), given, same)
    settings = tasks[0].judge.settings
    requests = {key: judge.requests(settings, *_pairs(own, task)) for key, (task, own) in new.items() if own}
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
        given.update(zip(own, judge.verdicts(settings, *_pairs(own, task), replies), strict=True))
        yield from _ready(waiting, given, used)
    for key in waiting:  # whose verdicts, or those of another stage that it waits for, were not to be had
        yield key, _with_used(broken.get(key) or next(iter(broken.values())), used[key])


def _used(reply: Completion | ProviderError) -> Usage:
    """Return what an ask used, or may have: one that failed too."""
    return reply.usage if isinstance(reply, Completion) else reply.used or Usage()


def _unasked(replies: Sequence[Completion | ProviderError]) -> ProviderError | None:
    """Return why a judge could not be asked; a refusal and a wrong request are answers of their own."""
    return next(
        (
            one
            for one in replies
            if isinstance(one, ProviderError) and not isinstance(one, BlockedError | RejectedError)
        ),
        None,
    )


def _with_used(error: ProviderError, used: Usage) -> ProviderError:
    """Return an error as that of one stage: several may fail by the same, and each is charged what it used itself."""
    own = copy(error).with_traceback(error.__traceback__)
    own.used = used
    return own


def unjudged(responses: Sequence[Response], given: Given, same: Same) -> dict[bytes, Response]:
    """Return the responses that have no usable verdict, equal ones once; where the judge could not be asked, it may be now."""
    for key in {same(response) for response in responses}:
        if key in given and given[key].outcome is Outcome.ERRORED:
            del given[key]
    return {key: response for response in responses if (key := same(response)) not in given}


def _shared_out(
    tasks: Sequence[GradingTask], given: Given, same: Same
) -> dict[str, tuple[GradingTask, dict[bytes, Response]]]:
    """Give each response that has no usable verdict to the first stage that has it; those that begun before come first."""
    taken: set[bytes] = set()
    shares = {}
    for task in tasks:
        new = unjudged(task.responses, given, same)
        shares[task.key] = task, {key: response for key, response in new.items() if key not in taken}
        taken |= new.keys()
    return shares


def _pairs(own: Mapping[bytes, Response], task: GradingTask) -> tuple[list[Prompt], list[Response]]:
    return [task.prompts[response.prompt_id] for response in own.values()], list(own.values())


def _ready(waiting: dict[str, set[bytes]], given: Given, used: Mapping[str, Usage]) -> Iterator[tuple[str, Usage]]:
    """Yield the stages of which everything is judged, once."""
    for key in [key for key, wanted in waiting.items() if wanted <= given.keys()]:
        del waiting[key]
        yield key, used[key]
