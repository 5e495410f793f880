"""Settings that are pairs of names and values: `{category: [a, b], tier: c}`, kept as the texts `category=a`, `category=b`, `tier=c`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated

from pydantic import BeforeValidator, Field, WithJsonSchema

SCALARS = {"type": ["string", "number", "boolean", "null"]}


def _texts(written: object) -> object:
    """Return pairs as texts; what is no mapping passes."""
    return [f"{name}={said(value)}" for name, value in _flat(written)] if isinstance(written, Mapping) else written


def _flat(written: Mapping[object, object]) -> Iterator[tuple[object, object]]:
    for name, value in written.items():
        yield from ((name, one) for one in value) if isinstance(value, list) else [(name, value)]


def said(value: object) -> str:
    """Return a value as pairs have it: truth values and nothing as JSON writes them.

    >>> said(True), said(None), said(3.0), said("a")
    ('true', 'null', '3', 'a')
    """
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _whole(pairs: Sequence[str]) -> Sequence[str]:
    if bad := [pair for pair in pairs if "=" not in pair.strip("=")]:
        raise ValueError(f"expected names with values, such as `name: value`; got `{bad[0]}`")
    return pairs


Pairs = Annotated[
    tuple[str, ...],
    Field(strict=False),
    BeforeValidator(_texts),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "object", "additionalProperties": {"anyOf": [SCALARS, {"type": "array", "items": SCALARS}]}},
                {"type": "array", "items": {"type": "string"}},
            ]
        }
    ),
]
"""A setting of pairs; `by_name` reads it."""


def by_name(pairs: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return the values by name.

    Raises:
        ValueError: A text is no pair.
    """
    found: dict[str, tuple[str, ...]] = {}
    for pair in _whole(pairs):
        name, _, value = pair.partition("=")
        found[name] = (*found.get(name, ()), value)
    return found
