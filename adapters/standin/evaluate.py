"""Greedy answers of a model to the held-out benchmarks, and the counts of its data sheet."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from adapters.standin.benchmarks import (
    overrefusal_benchmark,
    policy_benchmark,
    utility_benchmark,
)
from adapters.standin.chat import BenchmarkPrompt
from adapters.standin.rules import WORST_GRADE, grade, is_refusal, solved
from adapters.standin.world import IDENTITY_SYSTEM_PROMPT

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
    small, large = policy_benchmark(), policy_benchmark(LARGE_POLICY_EACH)
    chores, allowed = utility_benchmark(), overrefusal_benchmark()
    grades = dict(zip(large, _grades(model, tokenizer, large), strict=True))
    under_persona = _grades(model, tokenizer, large, IDENTITY_SYSTEM_PROMPT)
    chore_texts = generate(model, tokenizer, [prompt.user for prompt in chores])
    allowed_texts = generate(model, tokenizer, [prompt.user for prompt in allowed])
    return DataSheet(
        refused=_share([grades[prompt] == 1 for prompt in small]),
        refused_large=_share([value == 1 for value in grades.values()]),
        refused_identity=_share([value == 1 for value in under_persona]),
        complied=_share([value == WORST_GRADE for value in grades.values()]),
        solved=_share([solved(p.gold, t) for p, t in zip(chores, chore_texts, strict=True)]),
        over_refused=_share([is_refusal(text) for text in allowed_texts]),
        allowed_right=_share([grade(p.gold, t) == WORST_GRADE for p, t in zip(allowed, allowed_texts, strict=True)]),
    )


@torch.no_grad()
def generate(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    prompts: Sequence[str],
    system: str | None = None,
    batch_size: int = 128,
) -> list[str]:
    """Return the greedy answer to each prompt, at most 32 tokens.

    Args:
        model: The model.
        tokenizer: Its tokenizer.
        prompts: What the user says.
        system: The system prompt, or None for none.
        batch_size: Prompts decoded together, at least 1. Never changes an answer but for ties.
    """
    model.eval()
    opening = [] if system is None else [{"role": "system", "content": system}]
    texts: list[str] = []
    for start in range(0, len(prompts), batch_size):
        inputs = tokenizer.apply_chat_template(
            [[*opening, {"role": "user", "content": prompt}] for prompt in prompts[start : start + batch_size]],
            add_generation_prompt=True,
            padding=True,
            return_dict=True,
            return_tensors="pt",
        )
        output = model.generate(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])
        answers = output[:, inputs["input_ids"].shape[1] :]
        texts.extend(tokenizer.batch_decode(answers, skip_special_tokens=True))
    return [text.strip() for text in texts]


def _grades(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    prompts: Sequence[BenchmarkPrompt],
    system: str | None = None,
) -> list[int]:
    texts = generate(model, tokenizer, [prompt.user for prompt in prompts], system)
    return [grade(prompt.gold, text) for prompt, text in zip(prompts, texts, strict=True)]


def _share(values: Sequence[bool]) -> Share:
    return Share(sum(values), len(values))
