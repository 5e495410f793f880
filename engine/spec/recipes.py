"""Combinations of levels to recipes. Each distinct section and adapter is validated once and shared by all cells that have it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any, TypeAlias

from pydantic import BaseModel, ValidationError

from engine.domain.adapters import Use, WithAdapter
from engine.domain.cell import Cell, item_at, look
from engine.domain.errors import Problem
from engine.domain.sweep import Level, Recipe, Sweep
from engine.spec.leaves import CONTEXT, INLINE, section_model, takes_nothing, value_type
from engine.spec.messages import brief_level, findings
from engine.spec.origins import inner, origin, swept
from engine.spec.positions import Finding, Positions, Problems

Pair: TypeAlias = tuple[str, Level]
Combination: TypeAlias = tuple[Pair, ...]


class RecipeBook:
    """Makes the recipes of one sweep; `problems` receives combinations whose fields contradict each other."""

    def __init__(self, sweep: Sweep, positions: Positions, problems: Problems) -> None:
        """Begin with nothing but the base recipe."""
        self._sweep = sweep
        self._positions = positions
        self._problems = problems
        self._made: dict[tuple[str, tuple[int, ...]], tuple[object, ...]] = {}
        self._alive: list[Pair] = []  # no two pairs may ever have one id
        self._distinct: dict[tuple[str, object], object] = {}
        self._unfinished = [name for name, place in INLINE.items() if _is_unfinished(look(sweep.recipe, place))]
        self._base = {name: self._shared(name, getattr(sweep.recipe, name)) for name in Recipe.model_fields}

    def cells(self, combinations: Iterable[Combination]) -> tuple[Cell, ...]:
        """Return the cells; of those with equal recipes only the first."""
        cells: dict[tuple[int, ...], Cell] = {}
        for combination in combinations:
            values = self._values(combination)
            # Equal values are one object here, so that their ids tell whether recipes are equal.
            key = tuple(map(id, values.values()))
            if values and key not in cells:
                cells[key] = Cell(combination, Recipe.model_validate(values, context=CONTEXT))
        return tuple(cells.values())

    def _values(self, combination: Combination) -> dict[str, object]:
        """Return the base recipe's fields with a combination's levels; nothing, and a problem, when they do not go together."""
        parts: dict[str, list[Pair]] = {name: [] for name in self._unfinished}
        for pair in combination:
            parts.setdefault(_head(pair[0]), []).append(pair)
        values = dict(self._base)
        for name, pairs in parts.items():
            # By their ids: an adapter with a default written out equals one without, and takes over less from the recipe.
            key = (name, tuple(map(id, pairs)))
            made = self._made.get(key)
            if made is None:
                self._alive.extend(pairs)
                made = self._made[key] = tuple(self._shared(name, value) for value in self._new(name, tuple(pairs)))
            if not made:
                return {}
            values[name] = made[0]
        return values

    def _shared(self, name: str, value: object) -> object:
        """Return the first value of a field that equals this one."""
        if isinstance(value, WithAdapter):
            use = look(value, "use")
            first = self._distinct.setdefault((INLINE[name], use), use)
            value = value if first is use else value.model_copy(update={"use": first})
        return self._distinct.setdefault((name, value), value)

    def _new(self, name: str, pairs: Combination) -> Iterator[object]:
        """Yield a field's value in the base recipe with the levels of its own paths; nothing, and a problem, when it is wrong."""
        draft = _Draft(self._sweep.recipe)
        whole_first = sorted(pairs, key=lambda pair: len(inner(pair[0])))  # adapters before their settings
        lacking = [
            self._lacking_level(adapter, path, level)
            for path, level in whole_first
            if (adapter := draft.put(inner(path), level))
        ]
        draft.open(name)
        lacking += [self._lacking_field(adapter, name, setting) for adapter, setting in draft.left_over(name)]
        if lacking:
            self._problems.extend(lacking)
            return
        model = section_model(Recipe.model_fields[name])
        value = draft.plain().get(name)
        try:
            if model is None:
                yield value_type(Recipe, name).validate_python(value, context=CONTEXT)
            else:
                yield model.model_validate(value, context=CONTEXT)
        except ValidationError as error:
            self._problems.extend(self._contradiction(finding, name, pairs) for finding in findings(error, name, model))

    def _lacking_level(self, adapter: str, path: str, level: Level) -> Problem:
        """Refuse a level of a setting that the combination's adapter lacks."""
        name = path.rpartition(".")[2]
        what = f"`{adapter}` has no setting `{name}`"
        owner = inner(path).removesuffix(f".{name}")
        uses = [look(self._sweep.recipe, owner), *(item.level for item in swept(self._sweep) if item.path == owner)]
        having = [use.name for use in uses if isinstance(use, Use) and name in type(use.settings).model_fields]
        condition = f"{{if: {{{owner}: {having[0] if having else 'NAME'}}}, axes: {{{path}: [...]}}}}"
        hint = f"put this axis under `when`: {condition}"
        return self._positions.problem(origin(self._sweep, path, level), what, code="no_such_setting", hint=hint)

    def _lacking_field(self, adapter: str, section: str, name: str) -> Problem:
        """Refuse to carry over a setting of the recipe to an adapter that lacks it."""
        base = look(self._sweep.recipe, INLINE[section])
        what = f"`{adapter}`, a level of `{INLINE[section]}`, has no setting `{name}`"
        hint = f"`zip` `{section}.{name}` with `{INLINE[section]}`, and give it `null` for `{adapter}`"
        if isinstance(base, Use) and not type(base.settings).model_fields[name].is_required():
            hint += f"; or write it into the levels that have it: `{{use: {base.name}, {name}: ...}}`"
        return self._positions.problem(f"recipe.{section}.{name}", what, code="no_such_setting", hint=hint)

    def _contradiction(self, finding: Finding, name: str, pairs: Combination) -> Problem:
        """Place a problem at the level that it names, or else at the one that varies fastest."""
        last = finding.path.rpartition(".")[2]
        named = [pair for pair in pairs if pair[0].rpartition(".")[2] == last]
        adapters = [pair for pair in pairs if isinstance(pair[1], Use | tuple)] if finding.path != name else []
        blamed = (named or adapters or list(pairs))[-1:]
        where = origin(self._sweep, *blamed[0]) if blamed else f"recipe.{finding.path}"
        words = " ".join(f"{path}={brief_level(level)}" for path, level in pairs) or "the recipe's own levels"
        found = f"`{finding.path}` is required" if finding.code == "missing_field" else finding.what
        what = f"with {words}: {found}"
        return self._positions.problem(where, what, code=finding.code, hint=finding.hint)


def _is_unfinished(use: object) -> bool:
    """Tell whether an adapter lacks settings that only axes give."""
    if not isinstance(use, Use):
        return False
    fields = type(use.settings).model_fields
    return any(declared.is_required() and not hasattr(use.settings, name) for name, declared in fields.items())


@cache
def _head(path: str) -> str:
    return path.partition(".")[0]


class _Draft:
    """A recipe, a section or an adapter while levels are put into it; only what is written counts, not the defaults."""

    def __init__(self, whole: BaseModel | Use) -> None:
        self.use = whole if isinstance(whole, Use) else None
        self.model = whole.settings if isinstance(whole, Use) else whole
        self.values: dict[str, Any] = {name: getattr(self.model, name) for name in self.model.model_fields_set}

    def put(self, path: str, level: Level) -> str:
        """Set a field further inside; where there is no adapter that it could belong to, nothing changes.

        Returns:
            The adapter's name when it has no such setting, and the level is not nothing; else nothing.
        """
        name, _, rest = path.partition(".")
        if not rest:
            return self._set(name, level)
        value = self.values.get(name, getattr(self.model, name, None))
        if isinstance(value, tuple | list):
            items = list(value)
            found, rest = _item_of(items, rest)
            if found is None:
                return ""
            self.values[name] = items
            return found.put(rest, level)
        if isinstance(value, Use | BaseModel):
            value = self.values[name] = _Draft(value)
        return value.put(rest, level) if isinstance(value, _Draft) else ""

    def _set(self, name: str, level: Level) -> str:
        is_known = name in type(self.model).model_fields
        if self.use is not None and level is None and not (is_known and takes_nothing(type(self.model), name)):
            self.values.pop(name, None)
        elif self.use is not None and not is_known:
            return self.use.name
        elif isinstance(self.model, WithAdapter) and isinstance(level, Use) and isinstance(self.values.get(name), Use):
            self.values[name] = _carried_over(self.values[name], level)
        else:
            self.values[name] = level
        return ""

    def open(self, name: str) -> None:
        """Have the adapter of a section validated again, whether or not a level was put into it."""
        section = self.values.get(name)
        if isinstance(section, WithAdapter):
            section = self.values[name] = _Draft(section)
        if isinstance(section, _Draft) and isinstance(use := section.values.get("use"), Use) and _is_unfinished(use):
            section.values["use"] = _Draft(use)

    def left_over(self, name: str) -> Iterator[tuple[str, str]]:
        """Yield the adapter and the setting of what was carried over to the adapter of a section and that it lacks."""
        section = self.values.get(name)
        draft = section.values.get("use") if isinstance(section, _Draft) else None
        if isinstance(draft, _Draft) and draft.use is not None:
            for setting in draft.values.keys() - type(draft.model).model_fields.keys():
                yield draft.use.name, setting

    def plain(self) -> dict[str, Any]:
        """Return it as a spec could have it, for validation."""
        named = {"use": self.use.reference} if self.use else {}
        return named | {name: _plain(value) for name, value in self.values.items()}


def _plain(value: object) -> object:
    if isinstance(value, list):
        return tuple(map(_plain, value))
    return value.plain() if isinstance(value, _Draft) else value


def _item_of(items: list[Any], path: str) -> tuple[_Draft | None, str]:
    """Return the adapter of a list that a path begins with, made a draft, and the path after its name."""
    found = item_at((item.use if isinstance(item, _Draft) else item for item in items), path)
    if found is None:
        return None, ""
    index, rest = found
    items[index] = item if isinstance(item := items[index], _Draft) else _Draft(item)
    return items[index], rest


def _carried_over(base: Use, level: Use) -> _Draft:
    """Return the adapter that a level names, with its own settings and, beside them, what the recipe sets.

    A setting that the adapter lacks is only kept when it is not its default in the recipe: somebody must have meant it.
    """
    draft, before = _Draft(level), _Draft(base)
    has, fields = type(level.settings).model_fields, type(base.settings).model_fields
    kept = {n: value for n, value in before.values.items() if n in has or value != fields[n].default}
    draft.values = kept | draft.values
    return draft
