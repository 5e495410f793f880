"""What a model folder tells of itself before anything is loaded: how its weights are kept, and the habits of its chat template."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from jinja2 import TemplateError

from adapters import chat, lengths, model_folder, templates, thoughts
from engine.domain.conversation import Turn

PLACE = chat.PLACEHOLDER
"""Stands for a text where its place in a prompt is looked for."""

MOST_TOKENS = 8
"""Special tokens that are named."""


def notes(folder: Path, template: Sequence[str] = ()) -> tuple[str, ...]:
    """Say what people should know of a model, a sentence each.

    Args:
        folder: Its folder.
        template: What its chat template is told.

    Raises:
        OSError: A file cannot be read.
        ValueError: The configuration or the tokenizer is none.
    """
    return (*_kept(folder), *_template(folder, template))


def thinking(template: object, said: Sequence[str] = ()) -> Iterator[str]:
    """Say that a model may think before it answers, where its chat template shows it.

    Args:
        template: Its chat template.
        said: What a spec says of the marks around thoughts.
    """
    if marks := thoughts.marks(template, said):
        yield f"it may think before it answers ({' … '.join(marks)}): thoughts count towards `max_new_tokens`, and no judge reads them"


def _kept(folder: Path) -> Iterator[str]:
    config = model_folder.read_json(folder / model_folder.CONFIG)
    kind = config.get("dtype", config.get("torch_dtype"))
    positions = lengths.positions(folder)
    said = [f"kept as {kind}"] if isinstance(kind, str) else []
    said += [f"{positions:,} positions"] if positions else []
    if said:
        yield f"its config.json says: {', '.join(said)}"


def _template(folder: Path, options: Sequence[str]) -> Iterator[str]:
    tokenizer = lengths.tokenizer_of(folder, options)
    if not tokenizer.chat_template:
        yield "its tokenizer has no chat template"
        return
    try:
        asked = _prompt(tokenizer, None)
        ends = chat.closing(tokenizer)
    except (TemplateError, TypeError, ValueError) as error:
        yield f"its chat template cannot render a question and an answer: {error}"
        return
    special = {*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()}
    written = sorted((one for one in special if one and one in asked + ends), key=(asked + ends).index)
    named = ", ".join(map(json.dumps, written[:MOST_TOKENS])) or "none"
    yield f"special tokens of its chat template: {named}; an answer ends with {json.dumps(ends.strip())}"
    yield from _system(tokenizer, asked)
    yield from thinking(model_folder.chat_template(folder))
    if templates.has_date(model_folder.chat_template(folder)):
        yield (
            f"its chat template prints a date, and is always told {templates.TODAY}, or what `template: {{date: ...}}` of the"
            " model says"
        )


def _system(tokenizer: Any, asked: str) -> Iterator[str]:
    """Say what the template does without a system prompt, and whether it takes one."""
    try:
        told = _prompt(tokenizer, PLACE)
    except (TemplateError, TypeError, ValueError) as error:
        yield str(error)
        return
    before, _, rest = told.partition(PLACE)
    after = rest.partition(_QUESTION)[0]
    opening = asked.partition(_QUESTION)[0]
    if opening.startswith(before) and opening.endswith(after) and len(opening) > len(before) + len(after):
        own = opening[len(before) : len(opening) - len(after)]
        yield f"without a system prompt its chat template writes one of its own: {json.dumps(own, ensure_ascii=False)}"


_QUESTION = "Dosimeterquestion"


def _prompt(tokenizer: Any, system: str | None) -> str:
    return chat.prompt_text(tokenizer, [Turn("user", _QUESTION)], system)
