"""Recipes as settings: one value per path, as an axis would name it, and what tells one configuration from another."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import to_json

from engine.domain.adapters import Use, WithAdapter
from engine.domain.plan import PlannedCell
from engine.domain.sweep import Recipe

NOTHING: Final = "none"
"""How people read a value that is not there."""

LONGEST, KEPT = 32, 24
"""Characters of a value in a variant: longer ones are cut to `KEPT`, and keep a trace of their hash."""

COLUMNS: Final = ("data.n", "tune.epochs", "tune.steps", "tune.lr", "tune.lr_multiplier", "tune.method", "seed")
"""Paths that a variant leaves out, because every view has a column for them."""

_NAMED: Final = ("model", "data.source", "mitigations")
"""Adapters that a variant leaves out with all of their settings: a column has them as written."""

_IMPLIED: Final = ("tune.use", "generate.use")
"""Adapters that a model's name implies; they count where they vary for one model."""

_SYSTEM: Final = "generate.system"


@dataclass(frozen=True, slots=True)
class Setting:
    """One effective value of a recipe.

    Attributes:
        path: Where it stands, such as `tune.lr`, `benchmark.each`, `judges.rubric/policy.policy`; `mitigations[1].scale.factor` where a
            list has the same adapter twice.
        adapter: The adapter that declares it; empty for what every recipe has.
        value: The value as JSON has it; an adapter as it is written.
        level: The value as a variant says it; of an adapter its name alone, as its settings have paths of their own.
    """

    path: str
    adapter: str
    value: object
    level: str


def read(recipes: Iterable[Recipe]) -> tuple[list[dict[str, object]], list[list[Setting]]]:
    """Return each recipe as JSON has it, and its settings, defaults included.

    Cells share most of their fields: what is shared is read once, and is the same object in all that is returned.
    """
    known: dict[tuple[str, object], tuple[object, tuple[Setting, ...]]] = {}
    plain, settings = [], []
    for recipe in recipes:
        parts = {}
        for name, field in type(recipe).model_fields.items():
            value = getattr(recipe, name)
            key = (name, tuple(map(id, value)) if isinstance(value, tuple) else id(value))
            if key not in known:
                whole = recipe.model_dump(mode="json", include={name})
                known[key] = whole[name], tuple(_field(name, "", value, field))
            parts[name] = known[key]
        plain.append({name: whole for name, (whole, _) in parts.items()})
        settings.append([one for _, own in parts.values() for one in own])
    return plain, settings


def _field(path: str, adapter: str, value: object, field: FieldInfo) -> Iterator[Setting]:
    """Yield the settings of one field; a section that is left out has none."""
    if isinstance(value, Use):
        yield from _adapter(path, adapter, value)
    elif isinstance(value, BaseModel):
        yield from _section(path, adapter, value)
    elif isinstance(value, tuple) and any(isinstance(item, Use) for item in value):
        yield from _adapters(path, adapter, value)
    elif value is not None or not _holds_section(field):
        plain = _plain(value)
        yield Setting(path, adapter, plain, _level(plain))


def _section(path: str, adapter: str, section: BaseModel) -> Iterator[Setting]:
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if isinstance(section, WithAdapter) and isinstance(value, Use):
            named = _called(value)  # its settings stand beside it, not below
            yield Setting(f"{path}.{name}", adapter, named, named)
            yield from _section(path, value.name, value.settings)
        else:
            yield from _field(f"{path}.{name}", adapter, value, field)


def _adapter(path: str, adapter: str, use: Use) -> Iterator[Setting]:
    yield Setting(path, adapter, str(use), _called(use))
    yield from _section(path, use.name, use.settings)


def _adapters(path: str, adapter: str, items: Sequence[object]) -> Iterator[Setting]:
    uses = [(at, item) for at, item in enumerate(items) if isinstance(item, Use)]
    names = Counter(use.name for _, use in uses)
    called = [_called(item) if isinstance(item, Use) else str(item) for item in items]
    yield Setting(path, adapter, [str(item) for item in items], _level(called))
    for at, use in uses:
        place = path if names[use.name] == 1 else f"{path}[{at}]"
        yield from _section(f"{place}.{use.name}", use.name, use.settings)


def _called(use: Use) -> str:
    return f"{use.name}@{use.account}" if use.account else use.name


def _holds_section(field: FieldInfo) -> bool:
    kinds = (field.annotation, *get_args(field.annotation))
    return any(isinstance(kind, type) and issubclass(kind, BaseModel) for kind in kinds)


def _plain(value: object) -> object:
    """Return a value as JSON has it; what JSON lacks, such as infinity, is a text."""
    plain: object = json.loads(to_json(value, fallback=str, inf_nan_mode="strings"))
    return plain


def _level(plain: object) -> str:
    """Return a value as people read it: `0.1`, `none`, `a+b`.

    >>> _level(1.0), _level(None), _level([]), _level(["a", "b"]), _level(""), _level(True)
    ('1', 'none', 'none', 'a+b', "''", 'true')
    """
    if plain is None or plain == []:
        return NOTHING
    if isinstance(plain, list):
        return _short("+".join(map(str, plain)))
    if isinstance(plain, str):
        return _short(" ".join(plain.split()))
    return json.dumps(plain).removesuffix(".0")


def _short(text: str) -> str:
    if text in ("", NOTHING):
        return f"'{text}'"
    return text if len(text) <= LONGEST else f"{text[:KEPT]}…{hashlib.sha256(text.encode()).hexdigest()[:4]}"


def config_id(recipe: Mapping[str, object], system: str | None) -> str:
    """Return the name of a configuration: everything that tells a cell from others but the seed.

    Args:
        recipe: The cell's recipe as JSON has it.
        system: The system prompt in force at test.
    """
    text = json.dumps([{**recipe, "seed": None}, system], sort_keys=True, ensure_ascii=False)
    return f"conf-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def variants(cells: Sequence[PlannedCell], settings: Sequence[Sequence[Setting]]) -> list[str]:
    """Return what else tells each cell from its neighbours: `name=level` of the settings that vary and have no column.

    A setting counts when it varies among the tuned cells with the same mitigations (or among the untuned ones); one of an
    adapter's own, among those of them that have this adapter. It goes by its last name, or by its whole path where two
    paths of the run end alike.

    Args:
        cells: Every cell of a plan.
        settings: Theirs, in the same order.
    """
    paths = Counter(one.path for found in settings for one in found)
    ends = Counter(path.rpartition(".")[2] for path in paths)
    several = _several(settings, paths)
    told = [_telling(cell, found, several) for cell, found in zip(cells, settings, strict=True)]
    varying = _varying(cells, told)
    found = []
    for cell, own in zip(cells, told, strict=True):
        levels = {
            path: own[path].level if path in own else missing for path, missing in varying[_is_tuned(cell)].items()
        }
        names = {path: path.rpartition(".")[2] for path in sorted(levels) if levels[path]}
        found.append(" ".join(f"{name if ends[name] == 1 else path}={levels[path]}" for path, name in names.items()))
    return found


def _is_tuned(cell: PlannedCell) -> bool:
    return cell.cell.recipe.tune is not None


def _several(settings: Sequence[Sequence[Setting]], paths: Counter[str]) -> frozenset[str]:
    """Return the paths without a column of their own that have more than one level, or that not every cell has."""
    levels: dict[str, str] = {}
    differing = {path for path, number in paths.items() if number < len(settings)} | {_SYSTEM}
    for found in settings:
        for one in found:
            if levels.setdefault(one.path, one.level) != one.level:
                differing.add(one.path)
    return frozenset(path for path in differing if path not in COLUMNS and not _is_named(path))


def _is_named(path: str) -> bool:
    return any(path == name or path.startswith((f"{name}.", f"{name}[")) for name in _NAMED)


def _telling(cell: PlannedCell, settings: Sequence[Setting], paths: frozenset[str]) -> dict[str, Setting]:
    """Return a cell's settings at some paths. Untuned, its system prompt is the one in force, wherever it came from."""
    told = {one.path: one for one in settings if one.path in paths}
    if not _is_tuned(cell):
        told[_SYSTEM] = Setting(_SYSTEM, "", cell.system, _level(cell.system))
    return told


def _varying(cells: Sequence[PlannedCell], told: Sequence[Mapping[str, Setting]]) -> dict[bool, dict[str, str]]:
    """Return the paths that vary among tuned and among untuned cells, each with what stands for it where it is missing."""
    sizes = Counter(_group(cell) for cell in cells)
    levels: dict[tuple[Any, ...], Counter[str]] = defaultdict(Counter)
    for cell, own in zip(cells, told, strict=True):
        for path, one in own.items():
            among = cell.cell.recipe.model if path in _IMPLIED else one.adapter
            levels[(_group(cell), path, among, one.adapter)][one.level] += 1
    varying: dict[bool, dict[str, str]] = {True: {}, False: {}}
    for (group, path, among, adapter), counts in levels.items():
        is_missing = not among and counts.total() < sizes[group]
        if len(counts) > 1 or is_missing:
            varying[group[0]][path] = "" if adapter else NOTHING
    return varying


def _group(cell: PlannedCell) -> tuple[bool, tuple[Use, ...]]:
    return _is_tuned(cell), cell.cell.recipe.mitigations
