"""What pydantic found, in plain sentences. Its own words, types and addresses never reach a person."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from engine.domain.adapters import (
    ADAPTER_PATTERN,
    SettingsError,
    UnreadableUseError,
    WithAdapter,
    level_text,
)
from engine.domain.errors import UnknownAdapterError
from engine.domain.sweep import ACCOUNT_PATTERN, FINDING_PATTERN, VARIABLE_PATTERN, Level
from engine.spec.leaves import Leaves, section_model
from engine.spec.positions import Finding
from engine.spec.yaml_nodes import join

_SHOWN_TEXT = 40

Detail: TypeAlias = Mapping[str, Any]
"""One of pydantic's error details."""

_EXPECTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
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
        "write `name` or `name:argument`; a name has lower-case letters and digits, and `/`, `.`, `_` or `-` between them",
    ),
    ACCOUNT_PATTERN: (
        "a usable name",
        "use 1 to 32 lower-case letters, digits, `-` and `_`, and begin with a letter",
    ),
    FINDING_PATTERN: (
        "a finding that can be accepted",
        "there are `secrets`, `personal-data` and `contamination:BENCHMARK`, such as `contamination:file:data/eval.jsonl`",
    ),
    VARIABLE_PATTERN: (
        "the name of an environment variable",
        "export the key under a name of capitals, digits and `_`, and write that name",
    ),
}
_YAML_1_1 = {"yes": "true", "on": "true", "y": "true", "no": "false", "off": "false", "n": "false"}


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


_FEW = 12
_WORD = "word"
"""In a detail, a word that may stand in place of a number."""


def closest(word: str, known: Iterable[str], also: Mapping[str, str] | None = None) -> str:
    """Return `did you mean …?` for a close match; otherwise the known words when they are few, or nothing.

    >>> closest("epoch", ["tune.epochs", "tune.lr"]), closest("lr", ["tune.lr"]), closest("zzz", ["a", "b"])
    ('did you mean `tune.epochs`?', 'did you mean `tune.lr`?', 'known: `a`, `b`')
    >>> closest("tune.learning_rate", ["tune.epochs", "tune.lr"], {"tune.learning_rate": "tune.lr"})
    'did you mean `tune.lr`?'
    """
    meant = {**(also or {}), **{name: name for name in known}}
    parent, _, last_part = word.rpartition(".")
    beside = {
        name.rpartition(".")[2]: path for name, path in reversed(meant.items()) if name.rpartition(".")[0] == parent
    }
    anywhere = {name.rpartition(".")[2]: path for name, path in reversed(meant.items())}
    for written, names, cutoff in ((last_part, beside, 0.6), (word, meant, 0.8), (last_part, anywhere, 0.6)):
        for name in difflib.get_close_matches(written, names, n=1, cutoff=cutoff):
            return f"did you mean `{names[name]}`?"
    words = [name for name, path in meant.items() if name == path]
    return "known: " + ", ".join(f"`{name}`" for name in words) if 0 < len(words) <= _FEW else ""


def also(fields: Mapping[str, FieldInfo]) -> dict[str, str]:
    """Return the other words that fields carry for themselves, in `Field(json_schema_extra={"also": [...]})`."""
    extras = {name: field.json_schema_extra for name, field in fields.items()}
    return {
        str(word): name
        for name, extra in extras.items()
        if isinstance(extra, dict) and isinstance(words := extra.get("also"), list)
        for word in words
    }


@dataclass(frozen=True, slots=True)
class _Owner:
    """Whose fields are validated.

    Attributes:
        model: The model; None when there is none.
        adapter: The adapter whose settings they are; empty for none.
        beside: The engine's own fields in whose midst the settings stand.
    """

    model: type[BaseModel] | None
    adapter: str = ""
    beside: Mapping[str, FieldInfo] = field(default_factory=dict)

    def inside(self, place: Sequence[int | str]) -> _Owner:
        """Return whose fields there are at a place further inside."""
        return replace(self, model=_walked(self.model, place)[1], adapter="", beside={}) if place else self

    @property
    def fields(self) -> Mapping[str, FieldInfo]:
        """The fields that may be written."""
        return {**(self.model.model_fields if self.model is not None else {}), **self.beside}


def unknown_path(leaves: Leaves, path: str, where: str, further: Iterable[str] = ()) -> Finding:
    """Return the finding for a path, written at `where`, that no field has; `further` might have been meant as well."""
    inside = leaves.inside(path)
    if inside:
        what, hint = "this is a section, not a field", f"its fields: {', '.join(inside)}"
    elif (elsewhere := Leaves.of_installed().by_path.get(path)) is not None:
        owners = " or ".join(f"`{name}`" for name in elsewhere.adapters)
        what, hint = (
            f"it is a setting of {owners}, and the spec names no such adapter",
            "name the adapter, or drop this",
        )
    else:
        what, hint = "no such field in the recipe", _known_paths(leaves, path, further)
    return Finding(where, what, "unknown_path", hint, at_key=True)


def _known_paths(leaves: Leaves, path: str, further: Iterable[str]) -> str:
    """Return what may have been meant by a path that no field has: the closest, or else those beside it."""
    others = {
        known.removesuffix(leaf.name) + word: known
        for known, leaf in leaves.by_path.items()
        for word in also({leaf.name: leaf.field})
    }
    beside = leaves.inside(path.partition(".")[0])
    return closest(path, [*leaves.by_path, *further], others) or (f"there are: {', '.join(beside)}" if beside else "")


def ambiguous(path: str, where: str) -> Finding:
    """Return the finding for a path that two adapters in one list have."""
    what = "an adapter of that name stands twice in one list: this could mean either"
    hint = (
        f"write levels of the whole list instead: `{path.partition('.')[0]}: [[{{use: NAME, SETTING: 1}}, ...], ...]`"
    )
    return Finding(where, what, "ambiguous_path", hint, at_key=True)


def findings(error: ValidationError, path: str, model: type[BaseModel] | None = None) -> Iterator[Finding]:
    """Yield what is wrong with the value at a path, one finding per fault, and faults in adapters' settings at their own places.

    The model is that of the value, when it is a mapping of fields.
    """
    yield from _findings(error, path, _Owner(model))


def _findings(error: ValidationError, path: str, owner: _Owner) -> Iterator[Finding]:
    for detail in _merged(error.errors(include_url=False)):
        if detail["type"] == "too_short" and detail["input"]:
            continue  # its items were refused one by one, and then counted as missing
        *parents, last = detail["loc"] or ("",)
        if last == "[key]":  # of a mapping
            yield replace(_finding({**detail, "loc": tuple(parents)}, path, owner), at_key=True)
        elif isinstance(raised := detail.get("ctx", {}).get("error"), SettingsError):
            section = owner.inside(parents).model
            if last == "use" and section is not None and issubclass(section, WithAdapter):
                own = {name: field for name, field in section.model_fields.items() if name != last}
                where, beside = _path(path, parents, owner), own
            else:
                where, beside = _path(path, detail["loc"], owner), {}
            yield from _findings(raised.error, where, _Owner(raised.model, raised.name, beside))
        else:
            yield _finding(detail, path, owner)


def _merged(details: Sequence[Detail]) -> Iterator[Detail]:
    """Yield pydantic's details; those of a number or a word (`10`, `all`) as one, which says the word as well."""
    is_tag = "literal["  # pydantic's name of the words among the members of a union
    words = {detail["loc"][:-1]: detail for detail in details if str(*detail["loc"][-1:]).startswith(is_tag)}
    for detail in details:
        word = words.get(detail["loc"][:-1])
        if word is None:
            yield detail
        elif detail is not word:
            yield {**detail, _WORD: word["ctx"]["expected"].strip("'")}


def _finding(detail: Detail, path: str, owner: _Owner) -> Finding:
    kind, found = detail["type"], detail["input"]
    where = _path(path, detail["loc"], owner)
    if kind in _EXPECTED:
        finding = wrong_type(where, _EXPECTED[kind], found)
        word = f" or `{detail[_WORD]}`" if _WORD in detail else ""
        return replace(finding, what=finding.what.replace(",", f"{word},", 1))
    if kind in _BOUNDS:
        words, bound = _BOUNDS[kind]
        limit = detail["ctx"][bound]
        number = int(limit) if float(limit).is_integer() else limit
        return Finding(where, f"must be {words} {number} (got {brief(found)})", "out_of_range")
    if kind in {"missing", "extra_forbidden"}:
        return _field(detail, where, owner)
    if kind == "value_error":
        return _refusal(detail["ctx"]["error"], where, found)
    return _text(detail, where)


def _refusal(error: ValueError, where: str, found: object) -> Finding:
    """Explain what a validator says, that of adapters among them."""
    if isinstance(error, UnreadableUseError):
        if isinstance(found, dict) and found.get("use") is None:
            return Finding(where, "this mapping names no adapter", "missing_field", "add `use: NAME` to it")
        hint = "write `name`, `name:argument`, or a mapping with `use: name` and its settings"
        return replace(wrong_type(where, "an adapter", found), hint=hint)
    if not isinstance(error, UnknownAdapterError):
        return Finding(where, str(error), "inconsistent")
    if isinstance(found, dict):
        where, found = where if where.endswith(".use") else join(where, "use"), found["use"]
    if not re.match(ADAPTER_PATTERN, str(found)):
        name, hint = _NAMES[ADAPTER_PATTERN]
        return Finding(where, f"not {name} (got {brief(found)})", "bad_name", hint)
    return Finding(where, error.what, "unknown_adapter", error.todo)


def _text(detail: Detail, where: str) -> Finding:
    """Explain a value of the right type that is not one of those allowed."""
    kind, found, context = detail["type"], detail["input"], detail.get("ctx", {})
    if kind in {"literal_error", "enum"}:
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


def _field(detail: Detail, where: str, owner: _Owner) -> Finding:
    """Explain a field that is missing, or one that does not exist."""
    *parents, name = detail["loc"]
    inside = owner.inside(parents)
    if detail["type"] == "missing":
        field = inside.fields.get(str(name))
        return Finding(where, "this field is required", "missing_field", (field and field.description) or "")
    what = f"`{inside.adapter}` has no such setting" if inside.adapter else "no such field"
    hint = closest(str(name), inside.fields, also(inside.fields))
    return Finding(where, what, "unknown_field", hint, at_key=True)


def _walked(
    model: type[BaseModel] | None, place: Sequence[int | str]
) -> tuple[tuple[int | str, ...], type[BaseModel] | None]:
    """Follow a place from model to model.

    Returns:
        The part of the place that a person wrote, without pydantic's names of a union's members; and the model there, or None
        where there is none. A list's number, or a mapping's name, chooses an item of one kind.
    """
    walked: list[int | str] = []
    is_item = False
    for step in place:
        if not is_item and model is None and isinstance(step, str):
            break
        walked.append(step)
        if is_item or model is None:
            is_item = False
            continue
        field = model.model_fields.get(str(step))
        is_item = field is not None and bool(_origins(field) & {tuple, list, dict})
        model = section_model(field) if field is not None else None
    return tuple(walked), model


def _origins(declared: FieldInfo) -> set[Any]:
    return {get_origin(kind) for kind in (declared.annotation, *get_args(declared.annotation))}


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


def _path(path: str, place: Sequence[int | str], owner: _Owner) -> str:
    for step in _walked(owner.model, place)[0]:
        path = f"{path}[{step}]" if isinstance(step, int) else join(path, step)
    return path
