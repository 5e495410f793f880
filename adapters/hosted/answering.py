"""Answers from a provider, as the engine knows answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from adapters import thoughts
from adapters.hosted.tuning import account, asked
from engine.domain.conversation import Turn
from engine.domain.cost import Range, Usage
from engine.domain.results import Finish, Response
from engine.domain.sweep import Decoding
from engine.ports import Context, Generated, GenerateTask, NoSettings, Workload
from engine.ports.chat import ChatRequest, Completion, FinishReason
from engine.ports.provider_errors import BlockedError, ProviderError

TEMPLATE_TOKENS = 7
"""Tokens of the chat template around a prompt: three a turn, and those that begin the answer."""

EXPECTED_LENGTH = 0.5
"""Share of `max_new_tokens` that answers are expected to have, and their cost to come to."""

PROMPT_SPREAD = 1.4
"""Four characters a token is a rule of thumb."""

_FINISH = {
    FinishReason.STOP: Finish.STOP,
    FinishReason.LENGTH: Finish.LENGTH,
    FinishReason.FILTERED: Finish.FILTERED,
    FinishReason.REFUSED: Finish.STOP,
}


class HostedGenerator:
    """Chat completions of a hosted model, tuned or not."""

    revision = 1

    def forecast(self, settings: NoSettings, decoding: Decoding, workload: Workload) -> Range:
        """Estimate the tokens that are billed; at most, every answer is as long as it may be."""
        del settings
        read = workload.tokens + TEMPLATE_TOKENS * workload.items
        most = workload.items * decoding.samples * decoding.max_new_tokens
        low = Usage(prompt_tokens=read, generated_tokens=workload.items * decoding.samples)
        mid = Usage(prompt_tokens=read, generated_tokens=round(most * EXPECTED_LENGTH))
        return Range(low, mid, Usage(prompt_tokens=round(read * PROMPT_SPREAD), generated_tokens=most))

    def warm_up(self) -> None:
        """Nothing is heavy here."""

    def generate(self, tasks: Sequence[GenerateTask], context: Context) -> Iterator[tuple[str, Generated | Exception]]:
        """Ask for every prompt of every task, all at once within the quota."""
        by_key = {task.key: task for task in tasks}
        requests = {}
        for task in tasks:
            if shown := sum(any(turn.images for turn in prompt.turns) for prompt in task.prompts):
                message = f"{shown} of {len(task.prompts)} prompts have images, which are not sent yet"
                yield task.key, ValueError(message)
            else:
                requests[task.key] = _requests(task)
        for key, replies in account(context).complete_all(requests, urgent=False):
            yield key, _generated(by_key[key], replies)


def _requests(task: GenerateTask) -> list[ChatRequest]:
    model, decoding = asked(task.model), task.decoding
    before = () if task.system is None else (Turn("system", task.system),)
    seed = task.seed if decoding.temperature > 0 else None
    return [
        ChatRequest(
            model,
            (*before, *prompt.turns),
            decoding.max_new_tokens,
            decoding.temperature,
            decoding.top_p,
            decoding.samples,
            seed,
        )
        for prompt in task.prompts
    ]


def _generated(task: GenerateTask, replies: Sequence[Completion | ProviderError]) -> Generated | ProviderError:
    """Put the answers together; a prompt that moderation refused has a filtered one, anything else fails the task."""
    responses: list[Response] = []
    usage = sum((reply.usage if isinstance(reply, Completion) else reply.used or Usage() for reply in replies), Usage())
    for prompt, reply in zip(task.prompts, replies, strict=True):
        if isinstance(reply, BlockedError):
            responses += [
                Response(prompt.prompt_id, sample, "", Finish.FILTERED, 0, 0) for sample in range(task.decoding.samples)
            ]
        elif isinstance(reply, ProviderError):
            reply.used = usage  # its own too; the other answers are paid for, and will be used when this is tried again
            return reply
        else:
            responses += _responses(prompt.prompt_id, reply)
    return Generated(responses, usage)


def _responses(prompt_id: str, reply: Completion) -> Iterator[Response]:
    """Give each choice its share of the generated tokens: providers bill them together."""
    many = len(reply.choices)
    for sample, choice in enumerate(reply.choices):
        made = reply.generated_tokens // many + (sample < reply.generated_tokens % many)
        thought, text = thoughts.split_text(choice.text, is_cut=choice.finish_reason is FinishReason.LENGTH)
        both = "\n\n".join(filter(None, (choice.thoughts, thought)))
        yield Response(prompt_id, sample, text, _FINISH[choice.finish_reason], reply.prompt_tokens, made, both)
