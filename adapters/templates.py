"""What a chat template is told beside the conversation: options such as `enable_thinking`, and a date that never changes.

Whatever a template is told is written into its own text, before it, where training and asking, transformers and vLLM find it alike.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import date
from typing import Any

from adapters.pairs import by_name

TODAY = "2025-01-01"
"""The date that a template is told in the place of today's: equal keys are to be equal prompts, on every day."""

DATE = "date"
"""The option by which a spec says another one."""

SYSTEM, FOLD = "system", "fold"
"""The option, and its only value, that puts a system prompt before the first user's turn: for templates that have no place for one."""

KEPT = "{{- '' }}"
"""Stands between what is added and a template: what comes before white space may not be a block, which would take a line end away."""

_FOLDED = (
    "{%- if messages | length > 1 and messages[0].role == 'system' and messages[1].role == 'user' -%}"
    "{%- set folded_system, folded_user = messages[0].content, messages[1].content -%}"
    "{%- set folded = folded_system ~ '\\n\\n' ~ folded_user if folded_system is string else folded_system + [{'type': 'text', 'text': '\\n\\n'}] + folded_user -%}"
    "{%- set messages = [{'role': 'user', 'content': folded}] + messages[2:] -%}{%- endif -%}"
)
_FORMATS = re.compile(r"strftime_now\(\s*(['\"])(.*?)\1\s*\)")
_CALL = re.compile(r"strftime_now\s*\(")
_LLAMA = "date_string"
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LONGEST = 200


def check(options: Sequence[str]) -> None:
    """Refuse options that a template cannot be told.

    Raises:
        ValueError: A name is none, a date is none, or a value is too long.
    """
    for name, values in by_name(options).items():
        if not _NAME.fullmatch(name) or len(values) > 1 or len(values[0]) > _LONGEST:
            raise ValueError(
                f"`{name}` is no option of a template: a name with one short value, such as `enable_thinking: false`"
            )
        if name == DATE:
            _date(values[0])
        if name == SYSTEM and values[0] != FOLD:
            raise ValueError(f"`{SYSTEM}` is `{FOLD}` or left out, not `{values[0]}`")


def adjusted(template: str, options: Sequence[str]) -> str:
    """Return a template that is told its options, and a date.

    Args:
        template: A chat template in Jinja.
        options: `name=value`; a value that is JSON means that, another its text.

    Raises:
        ValueError: It prints today's date in a form that is worked out, so that no other can be told instead.
    """
    if len(_CALL.findall(template)) != len(_FORMATS.findall(template)):
        raise ValueError(
            "the chat template prints today's date in a form that cannot be read from it: write the date itself"
        )
    told = {name: values[0] for name, values in by_name(options).items()}
    day, is_folded = _date(told.pop(DATE, TODAY)), told.pop(SYSTEM, "") == FOLD
    lines = [_FOLDED] if is_folded else []
    lines += [f"{{%- set {name} = {_literal(value)} %}}" for name, value in told.items()]
    if _LLAMA in template and _LLAMA not in told:
        lines.append(f"{{%- set {_LLAMA} = {json.dumps(day.strftime('%d %b %Y'))} %}}")
    if formats := dict.fromkeys(found[1] for found in _FORMATS.findall(template)):
        branches = [f"{{%- if format == {json.dumps(one)} -%}}{day.strftime(one)}{{%- endif -%}}" for one in formats]
        lines.append(f"{{%- macro strftime_now(format) -%}}{''.join(branches)}{{%- endmacro %}}")
    return "".join([*lines, KEPT if lines else "", template])


def set_up(tokenizer: Any, options: Sequence[str]) -> Any:
    """Return a tokenizer whose chat template is told its options, and a date."""
    found = tokenizer.chat_template
    if isinstance(found, str):
        tokenizer.chat_template = adjusted(found, options)
    elif found:  # several, by name
        tokenizer.chat_template = {name: adjusted(template, options) for name, template in found.items()}
    return tokenizer


def has_date(template: object) -> bool:
    """Tell whether a template prints a date."""
    return _LLAMA in str(template) or "strftime_now" in str(template)


def _date(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise ValueError(f"`{DATE}` is a date such as {TODAY}, not `{text}`") from None


def _literal(value: str) -> str:
    try:
        found = json.loads(value)
    except ValueError:
        found = value
    if found is None or isinstance(found, bool):
        return str(found).lower()  # as Jinja has it
    return json.dumps(found if isinstance(found, int | float) else value)
