"""A cell: one experiment of a sweep, and how people call it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

from engine.domain.adapters import Use, level_text
from engine.domain.sweep import Level, Recipe


@dataclass(frozen=True, slots=True)
class Cell:
    """A recipe of the sweep; `coordinates` are (path, level) pairs in the order of the axes, which tell it from its neighbours."""

    coordinates: tuple[tuple[str, Level], ...]
    recipe: Recipe

    @property
    def levels(self) -> dict[str, Level]:
        """The coordinates as the cell has them, by path.

        Where an adapter and one of its settings are both swept, the adapter is the recipe's, with that setting; the setting of
        an adapter that the cell does not have is left out.
        """
        found = dict(self.coordinates)
        for parent in sorted(self._parents, key=len):
            if parent not in found:  # a setting of an adapter that the cell lacks
                continue
            there = found[parent] = look(self.recipe, parent)
            for path in [path for path in found if path.startswith(f"{parent}.")]:
                if not _has(there, path.removeprefix(f"{parent}.")):
                    del found[path]
        return found

    @property
    def _parents(self) -> list[str]:
        paths = [path for path, _ in self.coordinates]
        return [path for path in paths if any(other.startswith(f"{path}.") for other in paths)]

    @property
    def label(self) -> str:
        """Its levels in words, such as `source=standin/explicit n=10 seed=0`; an adapter's settings stand with the adapter.

        A path is called by its last name, or by its whole one where two paths end alike (`data.n`, `data.mix.n`).
        """
        inner = tuple(f"{parent}." for parent in self._parents)
        levels = {path: level for path, level in self.levels.items() if not path.startswith(inner)}
        names = [path.rpartition(".")[2] for path in levels]
        return " ".join(
            f"{name if names.count(name) == 1 else path}={level_text(level)}"
            for name, (path, level) in zip(names, levels.items(), strict=True)
        )


def _has(there: object, setting: str) -> bool:
    """Tell whether what stands in an adapter's place has a setting: `NAME.setting` in a list, else its own name alone."""
    if isinstance(there, tuple):
        return item_at(there, setting) is not None
    return isinstance(there, Use) and setting.partition(".")[0] in type(there.settings).model_fields


def look(value: object, path: str) -> Level:
    """Return what stands at a path inside a recipe, a section, an adapter or a list of them; None where nothing does."""
    while path and value is not None:
        if isinstance(value, tuple):
            index, path = item_at(value, path) or (None, "")
            value = None if index is None else value[index]
            continue
        name, _, path = path.partition(".")
        value = getattr(value.settings if isinstance(value, Use) else value, name, None)
    return cast("Level", value)


def item_at(items: Iterable[object], path: str) -> tuple[int, str] | None:
    """Return the number of the adapter in a list whose name a path begins with, and the path after it; None for no such.

    Of `x/v1` and `x/v1.0`, a path to the second begins with both names: the longer one is meant.
    """
    named = [(number, item.name) for number, item in enumerate(items) if isinstance(item, Use)]
    fitting = [(number, name) for number, name in named if path.startswith(f"{name}.")]
    number, name = max(fitting, key=lambda one: len(one[1]), default=(0, ""))
    return (number, path.removeprefix(f"{name}.")) if fitting else None
