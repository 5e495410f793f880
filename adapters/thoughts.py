"""What a model thinks before it answers, told from the answer by the marks that its chat template has.

Judges read answers; thoughts are kept beside them. Thoughts are what stands before the answer, between two marks, or in the channel
`analysis`. Only what the answer begins with counts: marks further on are the answer's own text, which nobody may hide from a judge.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, TypeAlias

from adapters.pairs import by_name

Marks: TypeAlias = tuple[str, str]

OPTION = "thoughts"
"""The option of a model's `template` that names the two marks, or `none`."""

MARKS: tuple[Marks, ...] = (
    ("<think>", "</think>"),
    ("[THINK]", "[/THINK]"),
    ("<seed:think>", "</seed:think>"),
)
"""Of Qwen3, DeepSeek-R1, SmolLM3, OLMo 3, Phi-4-reasoning and others; of Magistral; of Seed-OSS. By their chat templates."""

CHANNEL, MESSAGE, ANALYSIS = "<|channel|>", "<|message|>", "analysis"
"""Of the harmony format (openai/harmony, `docs/format.md`): a message's channel, where its text begins, and the channel of thoughts."""

TAIL = 16
"""Tokens at the end of a prompt among which an opening mark is looked for."""


def check(values: Sequence[str]) -> None:
    """Refuse what names no two marks.

    Raises:
        ValueError: It is neither `none` nor two unlike marks without white space.
    """
    if tuple(values) == ("none",):
        return
    if len(values) != 2 or len(set(values)) != 2 or any(not one or re.search(r"\s", one) for one in values):  # noqa: PLR2004 - a pair
        raise ValueError(f"`{OPTION}` is `none`, or two marks, such as ['<think>', '</think>']")


def marks(template: object, options: Sequence[str] = ()) -> Marks | None:
    """Return the marks around a model's thoughts; None where it has none.

    Args:
        template: Its chat template.
        options: What the model's `template` says; its `thoughts` goes before what the template shows.
    """
    said = by_name(options).get(OPTION)
    if said is not None:
        return None if len(said) == 1 else (said[0], said[1])
    text = str(template)
    if CHANNEL in text and MESSAGE in text:
        return CHANNEL, MESSAGE
    return next((pair for pair in MARKS if any(mark in text for mark in pair)), None)


def split(tokenizer: Any, prompt: Sequence[int], tokens: Sequence[int], options: Sequence[str] = ()) -> tuple[str, str]:
    """Return what a model thought, and its answer, both without special tokens.

    An answer that ends before the thoughts do is empty.

    Args:
        tokenizer: Of the model, with its chat template.
        prompt: Token ids of the prompt, which may end with the opening mark.
        tokens: Token ids of the answer.
        options: What the model's `template` says.
    """
    found = marks(tokenizer.chat_template, options)
    if found == (CHANNEL, MESSAGE):
        return _channels(tokenizer, tokens)
    if found is None or not _begins(tokenizer, prompt, tokens, found[0]):
        return "", _text(tokenizer, tokens)
    opening, closing = found
    special = {token.content: number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    if closing in special:  # decoding leaves it out
        end = special[closing]
        at = next((place for place, token in enumerate(tokens) if token == end), len(tokens))
        thoughts, answer = _text(tokenizer, tokens[:at]), _text(tokenizer, tokens[at + 1 :])
    else:
        thoughts, _, answer = _text(tokenizer, tokens).partition(closing)
    return thoughts.removeprefix(opening).strip(), answer.strip()


def split_text(text: str) -> tuple[str, str]:
    """Return what a model thought, and its answer, where only the text is known; it has to begin with an opening mark."""
    for opening, closing in MARKS:
        if text.lstrip().startswith(opening):
            thoughts, _, answer = text.lstrip().removeprefix(opening).partition(closing)
            return thoughts.strip(), answer.strip()
    return "", text


def lead(text: str) -> str:
    """Return the thoughts that a text of a training row begins with, marks and white space included; nothing where it begins with none."""
    for opening, closing in MARKS:
        begins, found, answer = text.partition(closing)
        if found and begins.lstrip().startswith(opening):
            return text[: len(text) - len(answer.lstrip())]
    return ""


def _text(tokenizer: Any, tokens: Sequence[int]) -> str:
    text: str = tokenizer.decode(list(tokens), skip_special_tokens=True)
    return text.strip()


def _begins(tokenizer: Any, prompt: Sequence[int], tokens: Sequence[int], opening: str) -> bool:
    """Tell whether thoughts have begun: the prompt ends with the opening mark, or the answer begins with it."""
    before, after = tokenizer.decode(list(prompt[-TAIL:])), tokenizer.decode(list(tokens))
    return bool(before.rstrip().endswith(opening) or after.lstrip().startswith(opening))


def _channels(tokenizer: Any, tokens: Sequence[int]) -> tuple[str, str]:
    """Split messages of the harmony format; what is in no channel is an answer."""
    ends = sorted(
        {*tokenizer.all_special_tokens, "<|start|>", "<|end|>", "<|return|>", "<|call|>"} - {CHANNEL, MESSAGE}
    )
    thoughts: list[str] = []
    answers: list[str] = []
    for place, part in enumerate(re.split("|".join(map(re.escape, ends)), tokenizer.decode(list(tokens)))):
        head, found, body = part.partition(MESSAGE)
        if not found:  # no message, or one that was cut off before its text; or text without any format
            head, body = (part, "") if CHANNEL in part or (place and part == "assistant") else ("", part)
        channel = head.partition(CHANNEL)[2].split()
        (thoughts if channel[:1] == [ANALYSIS] else answers).append(body.replace(CHANNEL, "").strip())
    return "\n\n".join(filter(None, thoughts)), "\n\n".join(filter(None, answers))
