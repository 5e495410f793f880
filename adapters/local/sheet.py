"""A task that is being answered: its prompts as tokens, and its answers as they come in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from adapters.local import chat
from engine.domain.cost import Usage
from engine.domain.results import Finish, Response
from engine.ports import Generated, GenerateTask


def rendered(tokenizer: Any, prompts: tuple[str, ...], system: str | None) -> list[list[int]]:
    """Return the token ids of prompts in the model's own chat template."""
    texts = [chat.prompt_text(tokenizer, prompt, system) for prompt in prompts]
    return tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else []


def reader(tokenizer: Any) -> Callable[[tuple[int, ...]], str]:
    """Return what turns an answer's tokens into text; it remembers, for refusals repeat."""

    @cache
    def read(tokens: tuple[int, ...]) -> str:
        text: str = tokenizer.decode(list(tokens), skip_special_tokens=True).strip()
        return text

    return read


@dataclass(slots=True)
class Sheet:
    """A task under way.

    Attributes:
        task: The task.
        prompts: Token ids of its rendered prompts.
        answers: (tokens, why they ended) by prompt and sample.
        seconds: Its share of the device's time so far.
    """

    task: GenerateTask
    prompts: Sequence[list[int]]
    answers: dict[tuple[int, int], tuple[list[int], Finish]] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def complete(self) -> bool:
        """Whether every prompt is answered."""
        return len(self.answers) == len(self.prompts) * self.task.settings.samples

    @property
    def longest(self) -> int:
        """Tokens of the longest row, prompt and answer."""
        return max(map(len, self.prompts), default=0) + self.task.settings.max_new_tokens

    @property
    def tokens(self) -> int:
        """Tokens read and made so far."""
        return sum(map(len, self.prompts)) + sum(len(tokens) for tokens, _ in self.answers.values())

    def generated(self, read: Callable[[tuple[int, ...]], str]) -> Generated:
        """Return the answers as text, prompts in order, and what they used; `read` is a `reader`."""
        responses = [
            Response(
                prompt_id=prompt.prompt_id,
                sample=sample,
                text=read(tuple(tokens)),
                finish=finish,
                prompt_tokens=len(self.prompts[index]),
                generated_tokens=len(tokens),
            )
            for index, prompt in enumerate(self.task.prompts)
            for sample in range(self.task.settings.samples)
            for tokens, finish in (self.answers[index, sample],)
        ]
        usage = Usage(
            prompt_tokens=sum(response.prompt_tokens for response in responses),
            generated_tokens=sum(response.generated_tokens for response in responses),
            device_seconds=self.seconds,
        )
        return Generated(responses, usage)
