"""Tokens as responses: the same for every generator on this machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from adapters import thoughts
from engine.domain.cost import Usage
from engine.domain.results import Finish, Response
from engine.ports import Generated, GenerateTask

Answers: TypeAlias = Mapping[tuple[int, int], tuple[Sequence[int], Finish]]
"""Tokens of an answer and why it ended, by the number of the prompt and the number of the sample."""


def generated(
    task: GenerateTask, prompts: Sequence[Sequence[int]], answers: Answers, tokenizer: Any, seconds: float
) -> Generated:
    """Return the answers of a task as text, thoughts apart, prompts in order, and what they used.

    Args:
        task: The task.
        prompts: Token ids of its rendered prompts.
        answers: `task.decoding.samples` answers of every prompt.
        tokenizer: Of the model that answered.
        seconds: Device time that it took.
    """
    responses = [
        Response(
            prompt_id=prompt.prompt_id,
            sample=sample,
            text=answer,
            finish=finish,
            prompt_tokens=len(prompts[index]),
            generated_tokens=len(tokens),
            thoughts=thought,
        )
        for index, prompt in enumerate(task.prompts)
        for sample in range(task.decoding.samples)
        for tokens, finish in (answers[index, sample],)
        for thought, answer in (
            thoughts.split(
                tokenizer, prompts[index], tokens, is_cut=finish is Finish.LENGTH, said=task.settings.thoughts
            ),
        )
    ]
    usage = Usage(
        prompt_tokens=sum(response.prompt_tokens for response in responses),
        generated_tokens=sum(response.generated_tokens for response in responses),
        device_seconds=seconds,
    )
    return Generated(responses, usage)
