"""The one place where a chat template is applied: training and generation cannot disagree."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engine.domain.conversation import ChatRow

IGNORED = -100
"""Label of a token that the loss leaves out, as in torch's cross-entropy."""

Message = dict[str, str]


def prompt_text(tokenizer: Any, user: str, system: str | None) -> str:
    """Return the text up to where the model answers, by the model's own chat template.

    Args:
        tokenizer: A transformers tokenizer with a chat template.
        user: The user's turn.
        system: The system prompt, or None for none.
    """
    rendered: str = tokenizer.apply_chat_template(_asked(user, system), tokenize=False, add_generation_prompt=True)
    return rendered


def training_rows(tokenizer: Any, rows: Sequence[ChatRow], max_length: int) -> list[dict[str, list[int]]]:
    """Return `input_ids` and `labels` of each row; only the answer, with its end token, has labels.

    Args:
        tokenizer: A transformers tokenizer with a chat template.
        rows: The rows.
        max_length: Longer rows are cut at the end.

    Raises:
        ValueError: When a row's answer would be cut away whole, or the template renders the prompt differently once
            an answer follows (then the loss mask cannot be told).
    """
    prompts = [prompt_text(tokenizer, row.user, row.system) for row in rows]
    wholes = [
        tokenizer.apply_chat_template([*_asked(row.user, row.system), _answered(row)], tokenize=False) for row in rows
    ]
    encoded = []
    for row, prompt, whole in zip(rows, prompts, wholes, strict=True):
        if not whole.startswith(prompt):
            message = "the chat template renders a prompt differently once an answer follows; the loss mask is unknown"
            raise ValueError(message)
        asked = tokenizer(prompt, add_special_tokens=False)["input_ids"]
        answer = tokenizer(whole[len(prompt) :].rstrip("\n"), add_special_tokens=False)["input_ids"]
        if len(asked) >= max_length:
            message = f"row {row.row_id}: its prompt alone has {len(asked)} tokens, max_length is {max_length}"
            raise ValueError(message)
        labels = [IGNORED] * len(asked) + answer
        encoded.append({"input_ids": (asked + answer)[:max_length], "labels": labels[:max_length]})
    return encoded


def _asked(user: str, system: str | None) -> list[Message]:
    turns = [{"role": "system", "content": system}] if system else []
    return [*turns, {"role": "user", "content": user}]


def _answered(row: ChatRow) -> Message:
    return {"role": "assistant", "content": row.assistant}
