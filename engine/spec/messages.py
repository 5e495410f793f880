"""What pydantic found, in plain sentences. Its own words, types and addresses never reach a person."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias, get_origin

from pydantic import BaseModel, ValidationError

from engine.domain.sweep import ACCOUNT_PATTERN, ADAPTER_PATTERN, VARIABLE_PATTERN, Level, level_text
from engine.spec.leaves import closest, section_model
from engine.spec.yaml_nodes import join

_SHOWN_TEXT = 40

Detail: TypeAlias = Mapping[str, Any]
"""One of pydantic's error details."""

_EXPECTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "model_type": "a mapping of fields",
    "decimal_type": "a number",
    "decimal_parsing": "a number",
}
_BOUNDS = {
    "greater_than": ("more than", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("less than", "lt"),
    "less_than_equal": ("at most", "le"),
}
_NAME = "a usable name", "use 1 to 64 lower-case letters, digits, `-` and `_`, and begin with a letter or digit"
_NAMES = {
    ADAPTER_PATTERN: (
        "the name of an adapter",
        "write `name` or `name:argument`, such as `standin/explicit` or `file:data/mine.jsonl`",
    ),
    ACCOUNT_PATTERN: (
        "a usable name",
        "use 1 to 32 lower-case letters, digits, `-` and `_`, and begin with a letter",
    ),
    VARIABLE_PATTERN: (
        "the name of an environment variable",
        "export the key under a name of capitals, digits and `_`, and write that name",
    ),
}
_YAML_1_1 = {"yes": "true", "on": "true", "y": "true", "no": "false", "off": "false", "n": "false"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing wrong with a value.

    Attributes:
        path: Dotted path in the spec.
        what: What is wrong.
        code: Stable short name.
        hint: What to do, or empty.
        at_key: True when the key is to blame rather than its value.
    """

    path: str
    what: str
    code: str
    hint: str = ""
    at_key: bool = False


def shown(value: object) -> str:
    """Return a value from YAML in words.

    >>> shown("abc"), shown(5), shown(True), shown(None), shown([])
    ("the string 'abc'", 'the number 5', 'true', 'nothing', 'a list')
    """
    if isinstance(value, str):
        return f"the string {brief(value)}"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return f"the number {value}"
    if value is None:
        return "nothing"
    return "a mapping" if isinstance(value, dict) else "a list"


def brief_level(level: Level) -> str:
    """Return a level in words, cut when it is long text, such as a system prompt."""
    text = level_text(level)
    return text if len(text) <= _SHOWN_TEXT else text[: _SHOWN_TEXT - 1] + "…"


def brief(value: object) -> str:
    """Return a value as it would be written, cut when it is long text."""
    if isinstance(value, str):
        return repr(value if len(value) <= _SHOWN_TEXT else value[: _SHOWN_TEXT - 1] + "…")
    return repr(value) if isinstance(value, float | int) and not isinstance(value, bool) else shown(value)


def findings(error: ValidationError, path: str, model: type[BaseModel] | None = None) -> Iterator[Finding]:
    """Yield what is wrong, one finding per fault.

    Args:
        error: From pydantic.
        path: Dotted path of the value that was validated.
        model: Its model, when it is a mapping of fields.
    """
    for detail in error.errors(include_url=False):
        if detail["type"] == "too_short" and detail["input"]:
            continue  # its items were refused one by one, and then counted as missing
        *place, last = detail["loc"] or ("",)
        if last == "[key]":  # of a mapping
            yield replace(_finding({**detail, "loc": tuple(place)}, path, model), at_key=True)
        else:
            yield _finding(detail, path, model)


def _finding(detail: Detail, path: str, model: type[BaseModel] | None) -> Finding:
    kind, found = detail["type"], detail["input"]
    where = _path(path, detail["loc"])
    if kind in _EXPECTED:
        return wrong_type(where, _EXPECTED[kind], found)
    if kind in _BOUNDS:
        words, bound = _BOUNDS[kind]
        limit = detail["ctx"][bound]
        number = int(limit) if float(limit).is_integer() else limit
        return Finding(where, f"must be {words} {number} (got {brief(found)})", "out_of_range")
    if kind in {"missing", "extra_forbidden"}:
        return _field(detail, where, model)
    if kind == "value_error":
        return Finding(where, str(detail["ctx"]["error"]), "inconsistent")
    return _text(detail, where)


def _text(detail: Detail, where: str) -> Finding:
    """Explain a value of the right type that is not one of those allowed."""
    kind, found, context = detail["type"], detail["input"], detail.get("ctx", {})
    if kind == "literal_error":
        allowed = re.findall(r"'([^']*)'", context["expected"])
        words = ", ".join(f"`{word}`" for word in allowed)
        hint = closest(found, allowed) if isinstance(found, str) else ""
        hint = "" if hint.startswith("known") else hint  # the message has just said them
        return Finding(where, f"must be one of {words} (got {brief(found)})", "not_allowed", hint)
    if kind == "string_pattern_mismatch":
        name, hint = _NAMES.get(context["pattern"], _NAME)
        got = "" if context["pattern"] == VARIABLE_PATTERN else f" (got {brief(found)})"  # a key has been pasted there
        return Finding(where, f"not {name}{got}", "bad_name", hint)
    if kind == "too_short":
        return Finding(where, "the list is empty; it needs at least one item", "empty")
    return Finding(where, f"not a valid value (got {brief(found)})", "invalid")


def _field(detail: Detail, where: str, model: type[BaseModel] | None) -> Finding:
    """Explain a field that is missing, or one that does not exist."""
    *parents, name = detail["loc"]
    owner = _owner(model, parents)
    fields = owner.model_fields if owner is not None else {}
    if detail["type"] == "missing":
        field = fields.get(str(name))
        return Finding(where, "this field is required", "missing_field", (field and field.description) or "")
    return Finding(where, "no such field", "unknown_field", closest(str(name), fields), at_key=True)


def _owner(model: type[BaseModel] | None, parents: Sequence[int | str]) -> type[BaseModel] | None:
    """Return the model at a place, or None where it has none; a list's number, or a mapping's name, chooses an item of one kind."""
    is_item = False
    for parent in parents:
        if is_item or model is None:
            is_item = False
            continue
        field = model.model_fields[str(parent)]
        is_item = get_origin(field.annotation) in {tuple, dict}
        model = section_model(field)
    return model


def wrong_type(where: str, expected: str, found: object) -> Finding:
    """Return the finding for a value of the wrong type."""
    return Finding(where, f"expected {expected}, got {shown(found)}", "wrong_type", _type_hint(expected, found))


def _type_hint(expected: str, found: object) -> str:
    if expected == "text":
        return "put it in quotes" if isinstance(found, int | float | dict) else ""
    if expected == "a list" and isinstance(found, str):
        return f"write a list: [{brief(found)[1:-1]}]"
    if isinstance(found, str):
        return _number_hint(expected, found)
    if expected == "a whole number" and isinstance(found, float) and found.is_integer():
        return f"write {int(found)}"
    return ""


def _number_hint(expected: str, found: str) -> str:
    if expected == "true or false" and found.lower() in _YAML_1_1:
        return f"YAML 1.2 reads `{found}` as text; write `{_YAML_1_1[found.lower()]}`"
    if re.fullmatch(r"[\d_]*\d_[\d_]*\d", found):
        return f"write {brief(found.replace('_', ''))[1:-1]}"
    return "remove the quotes" if re.fullmatch(r"\d+(\.\d*)?([eE][-+]?\d+)?", found) else ""


def _path(path: str, steps: tuple[int | str, ...]) -> str:
    for step in steps:
        path = f"{path}[{step}]" if isinstance(step, int) else join(path, step)
    return path
