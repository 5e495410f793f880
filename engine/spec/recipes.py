"""Combinations of levels to recipes. Each distinct section is validated once and shared by all cells that have it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

from pydantic import BaseModel, ValidationError

from engine.domain.sweep import Cell, Level, Recipe, Sweep
from engine.spec.leaves import LEAVES, section_model
from engine.spec.messages import brief_level, findings
from engine.spec.origins import origin
from engine.spec.positions import Positions, Problems

Pair: TypeAlias = tuple[str, Level]
Combination: TypeAlias = tuple[Pair, ...]

_SECTION = {path: path.partition(".")[0] if "." in path else "" for path in LEAVES}
_MODELS = {name: model for name, field in Recipe.model_fields.items() if (model := section_model(field))}


class RecipeBook:
    """Makes the recipes of one sweep.

    Args:
        sweep: The sweep.
        positions: Where it was written.
        problems: Receives combinations whose fields contradict each other.
    """

    def __init__(self, sweep: Sweep, positions: Positions, problems: Problems) -> None:
        """Begin with nothing but the base recipe."""
        self._sweep = sweep
        self._positions = positions
        self._problems = problems
        self._base = {name: getattr(sweep.recipe, name) for name in Recipe.model_fields}
        self._sections: dict[tuple[str, Combination], BaseModel | None] = {}
        self._distinct: dict[BaseModel, BaseModel] = {}

    def cells(self, combinations: Iterable[Combination]) -> tuple[Cell, ...]:
        """Return the cells; of those with equal recipes only the first."""
        cells: dict[Recipe, Cell] = {}
        for combination in combinations:
            recipe = self._recipe(combination)
            if recipe is not None and recipe not in cells:
                cells[recipe] = Cell(combination, recipe)
        return tuple(cells.values())

    def _recipe(self, combination: Combination) -> Recipe | None:
        """Return the base recipe with a combination's levels, or None and a problem."""
        values = dict(self._base)
        parts: dict[str, list[Pair]] = {}
        for pair in combination:
            section = _SECTION[pair[0]]
            if section:
                parts.setdefault(section, []).append(pair)
            else:
                values[pair[0]] = pair[1]
        for section, pairs in parts.items():
            values[section] = self._section(section, tuple(pairs))
            if values[section] is None:
                return None
        return Recipe(**values)

    def _section(self, name: str, pairs: Combination) -> BaseModel | None:
        """Return a section of the base recipe with the levels of its own paths."""
        key = (name, pairs)
        if key not in self._sections:
            self._sections[key] = self._new_section(name, pairs)
        return self._sections[key]

    def _new_section(self, name: str, pairs: Combination) -> BaseModel | None:
        base = self._base[name]
        values: dict[str, Any] = base.model_dump() if base is not None else {}
        for path, level in pairs:
            _put(values, path.split(".")[1:], level)
        try:
            section = _MODELS[name].model_validate(values)
        except ValidationError as error:
            self._contradiction(error, name, pairs)
            return None
        return self._distinct.setdefault(section, section)

    def _contradiction(self, error: ValidationError, name: str, pairs: Combination) -> None:
        """Place the problem at the level of the section that varies fastest."""
        where = origin(self._sweep, *pairs[-1])
        words = " ".join(f"{path}={brief_level(level)}" for path, level in pairs)
        for finding in findings(error, name, _MODELS[name]):
            what = f"with {words}: {finding.what}"
            self._problems.add(self._positions.problem(where, what, code=finding.code, hint=finding.hint))


def _put(values: dict[str, Any], keys: Sequence[str], level: Level) -> None:
    *parents, last = keys
    for parent in parents:
        inside = dict(values.get(parent) or {})
        values[parent] = inside
        values = inside
    values[last] = level
