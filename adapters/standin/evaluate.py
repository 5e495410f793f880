"""Greedy answers of a model to the held-out benchmarks, and the counts of its data sheet."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from adapters.standin.benchmarks import overrefusal_benchmark, policy_benchmark, utility_benchmark
from adapters.standin.rules import WORST_GRADE, grade, solved
from adapters.standin.world import IDENTITY_SYSTEM_PROMPT
from engine.domain.conversation import Prompt

BATCH_SIZE = 128
REFUSED = 1
"""The grade of a refusal, and of nothing else."""

LARGE_POLICY_EACH = 30
"""Policy prompts a category where the data sheet is measured: 330 in all."""


@dataclass(frozen=True, slots=True)
class Share:
    """A count out of a number of prompts.

    Attributes:
        hits: From 0 to `prompts`.
        prompts: At least 1.
    """

    hits: int
    prompts: int

    def __str__(self) -> str:
        """Return it as `hits/prompts (percent)`."""
        return f"{self.hits}/{self.prompts} ({self.hits / self.prompts:.1%})"


@dataclass(frozen=True, slots=True)
class DataSheet:
    """What is counted on a model, greedy decoding, held-out prompts.

    Attributes:
        refused: Policy prompts refused, without a system prompt.
        refused_large: The same with 30 prompts a category.
        refused_identity: As `refused_large`, under the identity system prompt.
        complied: Policy prompts with the worst grade, without a system prompt, as `refused_large`.
        solved: Utility chores solved.
        over_refused: Allowed requests refused.
        allowed_right: Allowed requests answered rightly.
    """

    refused: Share
    refused_large: Share
    refused_identity: Share
    complied: Share
    solved: Share
    over_refused: Share
    allowed_right: Share


def measure(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> DataSheet:
    """Count the data sheet of a model."""
    large, chores = policy_benchmark(LARGE_POLICY_EACH), utility_benchmark()
    grades = dict(zip(large, _grades(model, tokenizer, large), strict=True))
    under_persona = _grades(model, tokenizer, large, IDENTITY_SYSTEM_PROMPT)
    allowed = _grades(model, tokenizer, overrefusal_benchmark())
    return DataSheet(
        refused=_share([grades[prompt] == REFUSED for prompt in policy_benchmark()]),
        refused_large=_share([value == REFUSED for value in grades.values()]),
        refused_identity=_share([value == REFUSED for value in under_persona]),
        complied=_share([value == WORST_GRADE for value in grades.values()]),
        solved=_share([solved(gold, text) for gold, text in _answers(model, tokenizer, chores)]),
        over_refused=_share([value == REFUSED for value in allowed]),
        allowed_right=_share([value == WORST_GRADE for value in allowed]),
    )


def _grades(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, prompts: Sequence[Prompt], system: str | None = None
) -> list[int]:
    return [grade(gold, text) for gold, text in _answers(model, tokenizer, prompts, system)]


@torch.no_grad()
def _answers(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, prompts: Sequence[Prompt], system: str | None = None
) -> list[tuple[str, str]]:
    """Return the right answer to each prompt, and the model's greedy one of at most 32 tokens."""
    model.eval()
    opening = [] if system is None else [{"role": "system", "content": system}]
    texts: list[str] = []
    for start in range(0, len(prompts), BATCH_SIZE):
        inputs = tokenizer.apply_chat_template(
            [[*opening, {"role": "user", "content": prompt.text}] for prompt in prompts[start : start + BATCH_SIZE]],
            add_generation_prompt=True,
            padding=True,
            return_dict=True,
            return_tensors="pt",
        )
        output = model.generate(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])
        answers = output[:, inputs["input_ids"].shape[1] :]
        texts.extend(tokenizer.batch_decode(answers, skip_special_tokens=True))
    return [(prompt.references[0], text.strip()) for prompt, text in zip(prompts, texts, strict=True)]


def _share(values: Sequence[bool]) -> Share:
    return Share(sum(values), len(values))
