"""What a model thinks before it answers, told from the answer by the marks that its chat template has.

Judges read answers; thoughts are kept beside them. Thoughts are what stands before the answer, between two marks, or in the channel
`analysis`. Only what the answer begins with counts: marks further on are the answer's own text, which nobody may hide from a judge.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, TypeAlias

Marks: TypeAlias = tuple[str, str]

NONE = ("none",)
"""In the place of two marks: a model's thoughts stay in its answers."""

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


def check(said: Sequence[str]) -> None:
    """Refuse what names no two marks.

    Raises:
        ValueError: It is neither nothing, nor `none`, nor two unlike marks without white space.
    """
    if not said or tuple(said) == NONE:
        return
    if len(said) != 2 or said[0] == said[1] or any(not one or re.search(r"\s", one) for one in said):  # noqa: PLR2004 - a pair
        raise ValueError("`thoughts` is `none`, or two marks, such as ['<think>', '</think>']")


def marks(template: object, said: Sequence[str] = ()) -> Marks | None:
    """Return the marks around a model's thoughts; None where it has none.

    Args:
        template: Its chat template.
        said: What a spec says of them, which goes before what the template shows: two marks, or `none`; nothing for nothing.
    """
    if said:
        return None if tuple(said) == NONE else (said[0], said[1])
    text = str(template)
    if CHANNEL in text and MESSAGE in text:
        return CHANNEL, MESSAGE
    return next((pair for pair in MARKS if any(mark in text for mark in pair)), None)


def split(
    tokenizer: Any, prompt: Sequence[int], tokens: Sequence[int], *, is_cut: bool, said: Sequence[str] = ()
) -> tuple[str, str]:
    """Return what a model thought, and its answer, both without special tokens.

    Where thoughts do not end, they are thoughts only if the reply was cut off: then the answer is empty. A model that ended its turn
    by itself has answered, with all that it wrote.

    Args:
        tokenizer: Of the model, with its chat template.
        prompt: Token ids of the prompt, which may end with the opening mark.
        tokens: Token ids of the answer.
        is_cut: Whether it has reached its longest length.
        said: What a spec says of the marks, as in `marks`.
    """
    found = marks(tokenizer.chat_template, said)
    if found == (CHANNEL, MESSAGE):
        thought, answer = _channels(tokenizer, tokens, is_cut=is_cut)
        return (thought, answer) if answer or is_cut else ("", thought)
    whole = _text(tokenizer, tokens)
    if found is None or not _begins(tokenizer, prompt, tokens, found[0]):
        return "", whole
    opening, closing = found
    special = {token.content: number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    if closing in special:  # decoding leaves it out
        end = special[closing]
        is_closed = end in tokens
        at = list(tokens).index(end) if is_closed else len(tokens)
        thought, answer = _text(tokenizer, tokens[:at]), _text(tokenizer, tokens[at + 1 :])
    else:
        thought, closed, answer = whole.partition(closing)
        is_closed = bool(closed)
    if not is_closed and not is_cut:
        return "", whole.removeprefix(opening).strip()
    return thought.removeprefix(opening).strip(), answer.strip()


def split_text(text: str, *, is_cut: bool) -> tuple[str, str]:
    """Return what a model thought, and its answer, where only the text is known; it has to begin with an opening mark.

    Thoughts that do not end are as in `split`. A closing mark without an opening one says nothing.
    """
    for opening, closing in MARKS:
        if text.lstrip().startswith(opening):
            thought, closed, answer = text.lstrip().removeprefix(opening).partition(closing)
            return (thought.strip(), answer.strip()) if closed or is_cut else ("", thought.strip())
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


_BROKEN = re.compile(rf"\s*(assistant)?\s*{re.escape(CHANNEL)}\s*(analysis|commentary|final)?\b")
"""The head of a message that is not followed by the mark of its text."""

_HEADER = re.compile(rf"(assistant)?\s*({re.escape(CHANNEL)}\s*\w*)?\s*")
"""What stands before a message's text, where the reply was cut off there."""


def _channels(tokenizer: Any, tokens: Sequence[int], *, is_cut: bool) -> tuple[str, str]:
    """Split messages of the harmony format; what is in no channel, or in a broken one, is an answer."""
    special = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    ends = sorted(({"<|start|>", "<|end|>", "<|return|>", "<|call|>"} | special) - {CHANNEL, MESSAGE})
    parts = re.split("|".join(map(re.escape, ends)), tokenizer.decode(list(tokens)))
    if is_cut and _HEADER.fullmatch(parts[-1]):
        parts.pop()
    found: dict[bool, list[str]] = {True: [], False: []}
    for part in parts:
        head, has_text, body = part.partition(MESSAGE)
        if not has_text:
            broken = _BROKEN.match(part)
            head, body = "", part[broken.end() :] if broken else part
        found[head.partition(CHANNEL)[2].split()[:1] == [ANALYSIS]].append(body.replace(CHANNEL, "").strip())
    return "\n\n".join(filter(None, found[True])), "\n\n".join(filter(None, found[False]))
