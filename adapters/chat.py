"""The one place where a chat template is applied: training and generation cannot disagree."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engine.domain.conversation import ChatRow, Turn

IGNORED = -100
"""Label of a token that the loss leaves out, as in torch's cross-entropy."""


def prompt_text(tokenizer: Any, turns: Sequence[Turn], system: str | None) -> str:
    """Return the text up to where the model answers, by the model's own chat template.

    Args:
        tokenizer: A transformers tokenizer with a chat template.
        turns: The conversation so far, without a system turn; the last turn is the user's.
        system: The system prompt, or None for none.
    """
    opening = (Turn("system", system),) if system else ()
    return _rendered(tokenizer, (*opening, *turns), is_prompt=True)


def prompt_tokens(tokenizer: Any, prompts: Sequence[Sequence[Turn]], system: str | None) -> list[list[int]]:
    """Return the token ids of prompts in the model's own chat template; the arguments are those of `prompt_text`."""
    texts = [prompt_text(tokenizer, prompt, system) for prompt in prompts]
    return tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else []


def training_rows(tokenizer: Any, rows: Sequence[ChatRow], max_length: int) -> list[dict[str, list[int]]]:
    """Return `input_ids` and `labels` of each row; only the turns that are trained on, with their end tokens, have labels.

    Args:
        tokenizer: A transformers tokenizer with a chat template.
        rows: The rows.
        max_length: Longer rows are cut at the end.

    Raises:
        ValueError: When a row has images or nothing to train on, when all that it would be trained on would be cut away, or when
            the template renders a prompt differently once an answer follows (then the loss mask cannot be told).
    """
    return [_encoded(tokenizer, row, max_length) for row in rows]


def _encoded(tokenizer: Any, row: ChatRow, max_length: int) -> dict[str, list[int]]:
    if any(turn.images for turn in row.turns):
        raise ValueError(f"row {row.row_id} has images, and images cannot be trained on yet")
    turns = [turn for turn in row.turns if turn.role != "system" or turn.text]
    tokens: list[int] = []
    labels: list[int] = []
    before, first = "", None
    for index, turn in enumerate(turns):
        if not turn.is_trained:
            continue
        prompt = _after(before, _rendered(tokenizer, turns[:index], is_prompt=True))
        whole = _rendered(tokenizer, turns[: index + 1], is_prompt=False).rstrip("\n")
        asked, answer = _tokens(tokenizer, prompt), _tokens(tokenizer, _after(before + prompt, whole))
        first = len(asked) if first is None else first
        tokens += asked + answer
        labels += [IGNORED] * len(asked) + answer
        before = whole
    if first is None:
        raise ValueError(f"row {row.row_id} has no turn that is trained on")
    if first >= max_length:
        raise ValueError(f"row {row.row_id}: its prompt alone has {first} tokens, max_length is {max_length}")
    return {"input_ids": tokens[:max_length], "labels": labels[:max_length]}


def _after(before: str, whole: str) -> str:
    """Return what a longer rendering adds to a shorter one.

    Raises:
        ValueError: It does not begin with it.
    """
    if not whole.startswith(before):
        raise ValueError(
            "the chat template renders a prompt differently once an answer follows; the loss mask is unknown"
        )
    return whole[len(before) :]


def _tokens(tokenizer: Any, text: str) -> list[int]:
    found: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return found


def _rendered(tokenizer: Any, turns: Sequence[Turn], *, is_prompt: bool) -> str:
    messages = [{"role": turn.role, "content": turn.text} for turn in turns]
    text: str = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=is_prompt)
    return text
