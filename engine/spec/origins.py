"""Where in a spec a level of a cell was written, for problems that only the expanded grid or an adapter can find."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from engine.domain.sweep import Axis, Level, Sweep
from engine.spec.leaves import LEAVES, base_level


@dataclass(frozen=True, slots=True)
class WrittenLevel:
    """One level as the spec has it.

    Attributes:
        where: Dotted path in the spec, such as `axes.data.n[2]` or `recipe.data.n`.
        path: Dotted path in the recipe, such as `data.n`.
        level: The level.
    """

    where: str
    path: str
    level: Level


def _of_axes(axes: Iterable[Axis], prefix: str) -> Iterator[WrittenLevel]:
    for axis in axes:
        for index, level in enumerate(axis.levels):
            yield WrittenLevel(f"{prefix}.{axis.path}[{index}]", axis.path, level)


def swept(sweep: Sweep) -> Iterator[WrittenLevel]:
    """Yield every level of the axes, zips, whens and includes, in that order."""
    yield from _of_axes(sweep.axes, "axes")
    for index, group in enumerate(sweep.zips):
        yield from _of_axes(group.axes, f"zip[{index}]")
    for index, when in enumerate(sweep.whens):
        yield from _of_axes(when.axes, f"when[{index}].axes")
    for index, include in enumerate(sweep.includes):
        for path, level in include.levels:
            yield WrittenLevel(f"include[{index}].{path}", path, level)


def written(sweep: Sweep) -> Iterator[WrittenLevel]:
    """Yield every level of the spec: the recipe's own first, defaults included, then those that are swept."""
    for path in LEAVES:
        yield WrittenLevel(f"recipe.{path}", path, base_level(sweep.recipe, path))
    yield from swept(sweep)


def origin(sweep: Sweep, path: str, level: Level) -> str:
    """Return where `level` of `path` was first written; a level that is swept nowhere is the recipe's own."""
    places = (item.where for item in swept(sweep) if item.path == path and item.level == level)
    return next(places, f"recipe.{path}")
