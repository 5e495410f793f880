"""The recipe's leaf fields by dotted path: what an axis may sweep, and which levels each field takes."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, cast, get_args, get_origin

from pydantic import BaseModel, ConfigDict, TypeAdapter
from pydantic.fields import FieldInfo

from engine.domain.sweep import Level, Recipe


@dataclass(frozen=True, slots=True)
class Leaf:
    """A field of the recipe that holds no further fields.

    Attributes:
        path: Dotted path, such as `data.mix.n`.
        holds_list: True for fields whose level is a list, such as `judges`.
        kind: Validates a level.
        field: Its description and default.
    """

    path: str
    holds_list: bool
    kind: TypeAdapter[Any]
    field: FieldInfo

    def level(self, plain: object) -> Level:
        """Return a level as the recipe holds it.

        Raises:
            pydantic.ValidationError: The field does not take this value.
        """
        return cast("Level", self.kind.validate_python(plain))


def section_model(field: FieldInfo) -> type[BaseModel] | None:
    """Return the model of a field that is a section (`TuneRecipe | None`), or None."""
    for kind in (field.annotation, *get_args(field.annotation)):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
    return None


def _leaves(model: type[BaseModel], prefix: str) -> Iterator[Leaf]:
    for name, field in model.model_fields.items():
        section = section_model(field)
        if section is not None:
            yield from _leaves(section, f"{prefix}{name}.")
        else:
            kind = TypeAdapter[Any](field.rebuild_annotation(), config=ConfigDict(strict=True))
            yield Leaf(f"{prefix}{name}", get_origin(field.annotation) is tuple, kind, field)


LEAVES: Mapping[str, Leaf] = MappingProxyType({leaf.path: leaf for leaf in _leaves(Recipe, "")})
"""Every path that can be swept, in the order of the recipe's fields."""


def base_level(recipe: Recipe, path: str) -> Level:
    """Return the recipe's own level at `path`; None where its section is left out."""
    value: object = recipe
    for name in path.split("."):
        value = getattr(value, name, None)
    return cast("Level", value)


def missing_section(recipe: Recipe, path: str) -> str:
    """Return the section that `path` needs and the recipe leaves out, or nothing."""
    parts = path.split(".")[:-1]
    for length in range(1, len(parts) + 1):
        section = ".".join(parts[:length])
        if base_level(recipe, section) is None:
            return section
    return ""


_FEW = 12


def closest(word: str, known: Iterable[str]) -> str:
    """Return `did you mean …?` for a close match; otherwise the known words when they are few, or nothing.

    >>> closest("epoch", ["tune.epochs", "tune.lr"]), closest("lr", ["tune.lr"]), closest("zzz", ["a", "b"])
    ('did you mean `tune.epochs`?', 'did you mean `tune.lr`?', 'known: `a`, `b`')
    """
    words = list(known)
    by_last_part = {path.rpartition(".")[2]: path for path in reversed(words)}
    last_part = word.rpartition(".")[2]
    found = difflib.get_close_matches(word, words, n=1) or [
        by_last_part[name] for name in difflib.get_close_matches(last_part, by_last_part, n=1)
    ]
    if found:
        return f"did you mean `{found[0]}`?"
    return "known: " + ", ".join(f"`{name}`" for name in words) if 0 < len(words) <= _FEW else ""
