"""Levels: where each stands in a recipe, and where in a spec it was written, for problems that are found later."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pydantic import BaseModel

from engine.domain.adapters import Use
from engine.domain.cell import item_at, look
from engine.domain.sweep import Axis, Level, Recipe, Sweep
from engine.spec.leaves import INLINE, own_fields, section_model
from engine.spec.yaml_nodes import join


@dataclass(frozen=True, slots=True)
class WrittenLevel:
    """One level as the spec has it.

    Attributes:
        where: Dotted path in the spec, such as `axes.data.n[2]` or `recipe.mitigations[0].factor`.
        path: Dotted path of the leaf, such as `data.n` or `mitigations.scale.factor`.
    """

    where: str
    path: str
    level: Level


def _of_axes(axes: Iterable[Axis], prefix: str) -> Iterator[WrittenLevel]:
    for axis in axes:
        for index, level in enumerate(axis.levels):
            yield WrittenLevel(f"{join(prefix, axis.path)}[{index}]", axis.path, level)


def swept(sweep: Sweep) -> Iterator[WrittenLevel]:
    """Yield every level of the axes, zips, whens and includes, in that order."""
    yield from _of_axes(sweep.axes, "axes")
    for index, axes in enumerate(sweep.zips):
        yield from _of_axes(axes, f"zip[{index}]")
    for index, when in enumerate(sweep.whens):
        yield from _of_axes(when.axes, f"when[{index}].axes")
    for index, include in enumerate(sweep.includes):
        for path, level in include:
            yield WrittenLevel(join(f"include[{index}]", path), path, level)


def origin(sweep: Sweep, path: str, level: Level) -> str:
    """Return where `level` of `path` was first written; a level that is swept nowhere is the recipe's own.

    An adapter that no level equals, because further axes set something in it, is looked for by its name.
    """
    items = [item for item in swept(sweep) if item.path == path]
    places = [item.where for item in items if item.level == level]
    places += [item.where for item in items if (names := _names(item.level)) and names == _names(level)]
    return places[0] if places else f"recipe.{_place(sweep.recipe, path)}"


def _names(level: Level) -> tuple[str, ...]:
    """Return the names of the adapters in a level."""
    items = level if isinstance(level, tuple) else (level,)
    return tuple(item.name for item in items if isinstance(item, Use))


def _place(recipe: Recipe, path: str) -> str:
    """Return where a leaf's value stands in the recipe: an adapter in a list goes by its number there."""
    head, _, rest = path.partition(".")
    items = getattr(recipe, head, None)
    found = item_at(items, rest) if isinstance(items, tuple) else None
    return path if found is None else f"{head}[{found[0]}].{found[1]}"


def inner(path: str) -> str:
    """Return a path with its adapter's place in it, so that the place's path is where it begins.

    >>> inner("tune.lr"), inner("tune.epochs"), inner("judges.my/judge.model")
    ('tune.use.lr', 'tune.epochs', 'judges.my/judge.model')
    """
    head, _, rest = path.partition(".")
    if head not in INLINE or rest.partition(".")[0] in own_fields(head):
        return path
    return f"{INLINE[head]}.{rest}"


def base_level(recipe: Recipe, path: str) -> Level:
    """Return the recipe's own level at `path`; None where its section is left out, or no adapter there has such a setting.

    The level of `tune.use` and `generate.use` is the adapter's name alone: its settings have paths of their own.
    """
    value = look(recipe, inner(path))
    if path in INLINE.values() and isinstance(value, Use):
        return Use(value.name, type(value.settings).model_construct())
    return value


def is_setting_in(place: str, path: str) -> bool:
    """Tell whether a path is that of a setting of an adapter that stands at `place`."""
    return inner(path).startswith(f"{place}.")


def level_under(recipe: Recipe, owner: str, level: Level, path: str) -> Level:
    """Return the level at `path`, a setting, where an axis puts `level` in the place `owner` of its adapter.

    In `tune` and `generate`, what the recipe sets is carried over to another adapter that has a setting of that name.
    """
    rest = inner(path).removeprefix(f"{owner}.")
    base = look(recipe, owner) if owner in INLINE.values() else None
    if isinstance(level, Use) and isinstance(base, Use):
        name = rest.partition(".")[0]
        own, carried = level.settings, base.settings
        if name in type(own).model_fields and name in carried.model_fields_set - own.model_fields_set:
            return look(base, rest)
    return look(level, rest)


def missing_section(recipe: Recipe, path: str) -> str:
    """Return the section that `path` needs and the recipe leaves out, or nothing."""
    section: BaseModel = recipe
    walked: list[str] = []
    for name in path.split(".")[:-1]:
        declared = type(section).model_fields.get(name)
        if declared is None or section_model(declared) is None:
            return ""
        walked.append(name)
        inside = getattr(section, name)
        if inside is None:
            return ".".join(walked)
        section = inside
    return ""
