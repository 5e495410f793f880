"""Keys: canonical JSON of what a stage is, hashed. Raises on anything without stable bytes; explains differences."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain

from pydantic import BaseModel

from engine.domain.adapters import plain_level
from engine.domain.errors import UnstableValueError
from engine.domain.stage import StageKind
from engine.domain.sweep import Axis, Pattern, Sweep

FORMAT = 2
"""Version of the key algorithm itself; it is hashed into every key."""

KEY_DIGITS = 32
ABSENT = "(absent)"
ADAPTERS_OWN = "settings.settings."
"""How the paths of an adapter's own settings begin in a payload; people read them without the first part."""


def canonical(value: object, path: str = "settings") -> str:
    """Return the one JSON text of `value`: keys sorted, no spaces, `1.0` written as `1`, UTF-8 kept.

    Args:
        value: None, bool, int, finite float, str, a list or tuple of such, a mapping with str keys, or a pydantic
            model (its defaults are left out, since a default belongs to the adapter's revision).
        path: Where the value is, for the error.

    Raises:
        UnstableValueError: For anything else; the message names the path and the type.

    >>> canonical({"b": 1.0, "a": [None, True, "é"]})
    '{"a":[null,true,"é"],"b":1}'
    """
    return json.dumps(_plain(value, path), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _plain(value: object, path: str) -> object:
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            if not math.isfinite(value):
                raise UnstableValueError(f"{value} has no stable bytes", where=path, todo="use a finite number")
            return int(value) if value.is_integer() else value
        case BaseModel():
            return _plain(value.model_dump(mode="python", exclude_defaults=True), path)
        case Mapping():
            return {_text_key(key, path): _plain(item, f"{path}.{key}") for key, item in value.items()}
        case Sequence() if not isinstance(value, bytes | bytearray):
            return [_plain(item, f"{path}[{index}]") for index, item in enumerate(value)]
        case _:
            raise UnstableValueError(
                f"a {type(value).__name__} has no stable bytes, so it cannot enter a key",
                where=path,
                todo="give a number, a string, a list or a mapping",
            )


def _text_key(key: object, path: str) -> str:
    if not isinstance(key, str):
        raise UnstableValueError(f"the mapping key {key!r} is not a string", where=path)
    return key


@lru_cache(maxsize=4096)
def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def payload(kind: StageKind, adapter: str, revision: int, settings: str, inputs: Sequence[tuple[str, str]]) -> str:
    """Return the canonical JSON that is hashed.

    It is put together from canonical parts, because a sweep of 100,000 cells asks for it 800,000 times; a test holds
    it equal to `canonical` of the whole.

    Args:
        kind: The stage's kind.
        adapter: The adapter's name.
        revision: The adapter's revision.
        settings: Canonical JSON of the settings.
        inputs: (name, key) of the stages it needs; names are plain words, and no two are equal.
    """
    listed = ",".join(f'"{name}":"{key}"' for name, key in sorted(inputs))
    return (
        f'{{"adapter":{_quoted(adapter)},"format":{FORMAT},"inputs":{{{listed}}},"kind":"{kind.value}",'
        f'"revision":{revision},"settings":{settings}}}'
    )


def stage_key(kind: StageKind, text: str) -> str:
    """Return `kind-` and 32 hex digits of the SHA-256 of the payload `text`."""
    return f"{kind.value}-{hashlib.sha256(text.encode()).hexdigest()[:KEY_DIGITS]}"


def pinned(pin: str, revision: int) -> str:
    """Return what a key says of something outside the spec: its content, and the revision of the adapter that reads it.

    >>> pinned("sha256:ab", 2)
    'sha256:ab#2'
    """
    return f"{pin}#{revision}"


def spec_digest(sweep: Sweep) -> str:
    """Return the SHA-256, in hex, of a sweep without its description and its run settings."""
    grid = {
        "axes": _axes(chain(sweep.axes, *sweep.zips)),
        "zips": [len(axes) for axes in sweep.zips],
        "when": [[_patterns(when.patterns), _axes(when.axes)] for when in sweep.whens],
        "exclude": [_patterns(patterns) for patterns in sweep.excludes],
        "include": [[[path, plain_level(level)] for path, level in levels] for levels in sweep.includes],
        "baselines": sweep.baselines,
    }
    whole = {"sweep": sweep.sweep, "recipe": sweep.recipe.model_dump(exclude_defaults=True), "grid": grid}
    return hashlib.sha256(canonical(whole).encode()).hexdigest()


def _axes(axes: Iterable[Axis]) -> list[object]:
    return [[axis.path, plain_level(axis.levels)] for axis in axes]


def _patterns(patterns: Iterable[Pattern]) -> list[object]:
    return [[pattern.path, plain_level(pattern.any_of)] for pattern in patterns]


@dataclass(frozen=True, slots=True)
class Difference:
    """One field in which two payloads differ; `before` or `after` is `(absent)` where a side lacks it."""

    path: str
    before: str
    after: str


def differences(before: str, after: str) -> tuple[Difference, ...]:
    """Return, field by field, how two payloads differ; inputs are left out, since their own stages explain them."""
    old, new = dict(_leaves(json.loads(before))), dict(_leaves(json.loads(after)))
    return tuple(
        Difference(path.replace(ADAPTERS_OWN, "settings.", 1), old.get(path, ABSENT), new.get(path, ABSENT))
        for path in sorted(old.keys() | new.keys())
        if old.get(path) != new.get(path) and not path.startswith("inputs")
    )


def _leaves(value: object, path: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _leaves(item, f"{path}.{key}" if path else key)
    else:
        yield path, json.dumps(value, ensure_ascii=False)
