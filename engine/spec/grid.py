"""The grid language: `axes`, `zip`, `when`, `exclude` and `include`, from plain values to the Sweep's own types.

Every level is validated by the field that it is for, and every pattern must be able to hold: a typo in `exclude`
would otherwise buy cells that nobody wanted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from pydantic import ValidationError

from engine.domain.adapters import Use
from engine.domain.sweep import Axis, Level, Pattern, Recipe, When
from engine.spec.leaves import INLINE, Leaf, Leaves
from engine.spec.messages import ambiguous, brief_level, closest, findings, unknown_path, wrong_type
from engine.spec.origins import base_level, is_setting_in, level_under, missing_section
from engine.spec.positions import Finding, Positions, Problems
from engine.spec.yaml_nodes import Map, Plain, join


class Grid(NamedTuple):
    """Everything but the recipe that decides which cells there are."""

    axes: tuple[Axis, ...]
    zips: tuple[tuple[Axis, ...], ...]
    whens: tuple[When, ...]
    excludes: tuple[tuple[Pattern, ...], ...]
    includes: tuple[tuple[tuple[str, Level], ...], ...]


@dataclass(slots=True)
class GridReader:
    """Reads the grid of one spec, top to bottom, and remembers which levels each path takes.

    Attributes:
        root: The whole spec.
        leaves: What it may sweep.
        recipe: The base recipe, or None when it is not valid itself.
        problems: Receives what is wrong.
    """

    root: Map
    leaves: Leaves
    recipe: Recipe | None
    positions: Positions
    problems: Problems
    _always: dict[str, str] = field(default_factory=dict)  # paths that every combination sweeps, and where
    _taken: dict[str, dict[Level, None]] = field(default_factory=dict)  # the levels that a swept path takes
    _doubtful: list[Finding] = field(default_factory=list)  # may be right for an adapter that is not installed
    _unsure: set[str] = field(default_factory=set)  # paths with a level that is wrong: other levels may be meant

    def read(self) -> Grid:
        """Return the grid; it is only whole when no problem was added."""
        given = self.root.get("axes")
        # `axes:` with every line commented out is no grid.
        axes = () if given is None or given == {} else self._product(given, "axes", always=True)
        zips = tuple(self._zip(item, where) for where, item in self._items("zip"))
        whens = tuple(self._when(item, where) for where, item in self._items("when"))
        excludes = tuple(self._patterns(item, where) for where, item in self._items("exclude"))
        includes = tuple(self._include(item, where) for where, item in self._items("include"))
        for finding in self._doubtful if not self.problems.found else ():
            self._add(finding)
        return Grid(
            axes,
            tuple(axes for axes in zips if axes),
            tuple(when for when in whens if _can_hold(when.patterns)),
            tuple(patterns for patterns in excludes if _can_hold(patterns)),
            includes,
        )

    def _add(self, finding: Finding) -> None:
        self.problems.add(self.positions.place(finding))

    def _items(self, key: str) -> Iterator[tuple[str, Plain]]:
        given = self.root.get(key)
        if isinstance(given, list):
            yield from ((f"{key}[{index}]", item) for index, item in enumerate(given))
        elif given is not None:
            hint = "begin each item with `- `" if isinstance(given, dict) else ""
            self._add(replace(wrong_type(key, "a list", given), hint=hint))

    def _entries(self, group: Plain, where: str) -> Iterator[tuple[str, str, Plain]]:
        """Yield each path of a mapping of paths, where it stands, and what is given there."""
        if not isinstance(group, dict):
            self._add(wrong_type(where, "a mapping of paths", group))
            return
        if not group:
            self._add(Finding(where, "nothing is given here", "empty"))
        for path, given in group.items():
            yield path, join(where, path), given

    def _leaf(self, path: str, where: str) -> Leaf | None:
        """Return the field that a key names, or None when it names none that can be swept."""
        leaf = self.leaves.by_path.get(path)
        if leaf is None:
            finding = unknown_path(self.leaves, path, where)
            if self.leaves.is_unsure(path):
                self._doubtful.append(finding)
            else:
                self._add(finding)
            return None
        if path.startswith(tuple(self.leaves.doubled)):
            self._add(ambiguous(path, where))
            return None
        section = missing_section(self.recipe, path) if self.recipe is not None else ""
        if section:
            what = f"the recipe has no `{section}`, so this cannot be varied"
            self._add(Finding(where, what, "missing_section", f"add `{section}` to `recipe`", at_key=True))
            return None
        return leaf

    def _axes(self, group: Plain, where: str, *, always: bool) -> tuple[Axis, ...]:
        axes = [self._axis(*entry, always=always) for entry in self._entries(group, where)]
        return tuple(axis for axis in axes if axis is not None)

    def _product(self, group: Plain, where: str, *, always: bool) -> tuple[Axis, ...]:
        """Return the axes in a mapping of path to levels, each level once."""
        axes = self._axes(group, where, always=always)
        for axis in axes:
            self._once((axis,), where)
        return axes

    def _axis(self, path: str, where: str, given: Plain, *, always: bool) -> Axis | None:
        leaf = self._leaf(path, where)
        if leaf is None:
            return None
        if leaf.path in self._always:
            other = self._always[leaf.path]
            what = f"`{leaf.path}` is already swept by `{other}`"
            self._add(Finding(where, what, "swept_twice", "remove one of the two", at_key=True))
        elif always:
            self._always[leaf.path] = where
        levels = self._levels(given, where, leaf)
        self._taken.setdefault(leaf.path, {}).update(dict.fromkeys(levels))
        return Axis(path=leaf.path, levels=levels)

    def _levels(self, given: Plain, where: str, leaf: Leaf) -> tuple[Level, ...]:
        if not isinstance(given, list):
            hint = "write the levels in brackets: [1, 2]; one value for all cells belongs in `recipe`"
            self._add(replace(wrong_type(where, "a list of levels", given), hint=hint))
            self._unsure.add(leaf.path)
            return ()
        if not given:
            self._add(Finding(where, "an axis needs at least one level", "empty_axis"))
            self._unsure.add(leaf.path)
        levels = [self._level(item, f"{where}[{index}]", leaf) for index, item in enumerate(given)]
        return tuple(level for found in levels for level in found)

    def _once(self, axes: tuple[Axis, ...], where: str) -> None:
        """Refuse a step that axes which are walked together take twice."""
        first: dict[tuple[Level, ...], int] = {}
        for index, step in enumerate(zip(*(axis.levels for axis in axes), strict=False)):
            if step in first and not self._unsure.intersection(axis.path for axis in axes):
                place = join(where, axes[0].path)
                words = " ".join(map(brief_level, step))
                what = f"the level {words} is already at `{place}[{first[step]}]`"
                self._add(Finding(f"{place}[{index}]", what, "duplicate_level", "remove one of the two"))
            first.setdefault(step, index)

    def _level(self, given: Plain, where: str, leaf: Leaf, *, is_pattern: bool = False) -> tuple[Level, ...]:
        """Return the level in a tuple of its own, or an empty tuple when it is not one."""
        try:
            return (leaf.level(given, is_pattern=is_pattern),)
        except ValidationError as error:
            self._unsure.add(leaf.path)
            found = list(findings(error, where))
            # Of `tune.use` and `generate.use`, the recipe and other axes may give what is missing.
            is_partial = leaf.path in INLINE.values()
            others = [finding for finding in found if not is_partial or finding.code != "missing_field"]
            for finding in others or found:
                is_flat = leaf.holds_list and not isinstance(given, list)
                hint = f"a level of `{leaf.path}` is itself a list: [[a], [b, c]]" if is_flat else finding.hint
                self._add(replace(finding, hint=hint))
            return ()

    def _zip(self, group: Plain, where: str) -> tuple[Axis, ...]:
        axes = self._axes(group, where, always=True)
        for axis in axes[1:]:
            if len(axis.levels) != len(axes[0].levels) and not self._unsure & {axis.path, axes[0].path}:
                what = f"{len(axis.levels)} levels, but `{axes[0].path}` beside it has {len(axes[0].levels)}"
                hint = "zipped axes are walked together and need equal lengths"
                self._add(Finding(join(where, axis.path), what, "unequal_zip", hint, at_key=True))
        self._once(axes, where)
        return axes

    def _when(self, item: Plain, where: str) -> When:
        if not isinstance(item, dict):
            self._add(wrong_type(where, "a mapping with `if` and `axes`", item))
            return When(patterns=(), axes=())
        for key in item.keys() - {"if", "axes"}:
            hint = closest(key, ["if", "axes"])
            self._add(Finding(join(where, key), "no such field", "unknown_field", hint, at_key=True))
        for key in ("if", "axes"):
            if key not in item:
                self._add(Finding(f"{where}.{key}", "this field is required", "missing_field"))
        return When(
            patterns=self._patterns(item["if"], f"{where}.if") if "if" in item else (),
            axes=self._product(item["axes"], f"{where}.axes", always=False) if "axes" in item else (),
        )

    def _patterns(self, group: Plain, where: str) -> tuple[Pattern, ...]:
        patterns: list[Pattern] = []
        for path, here, given in self._entries(group, where):
            leaf = self._leaf(path, here)
            if leaf is not None:
                patterns.append(Pattern(path=leaf.path, any_of=self._any_of(given, here, leaf)))
        return tuple(patterns)

    def _any_of(self, given: Plain, where: str, leaf: Leaf) -> tuple[Level, ...]:
        """Return the levels of a pattern that some combination has; a level that none has is a typo."""
        levels: dict[Level, None] = {}
        alternatives = [(where, given)]
        if isinstance(given, list) and leaf.are_levels(given):
            alternatives = [(f"{where}[{index}]", item) for index, item in enumerate(given)]
        for here, item in alternatives:
            for level in self._level(item, here, leaf, is_pattern=True):
                taken = self._meant(leaf.path, level)
                levels |= dict.fromkeys(taken)
                if not taken and leaf.path not in self.positions.overridden:
                    self._never_taken(here, leaf.path, level)
        if given == [] and not leaf.holds_list:
            self._add(Finding(where, "a pattern needs at least one level", "empty"))
        return tuple(levels)

    def _meant(self, path: str, level: Level) -> tuple[Level, ...]:
        """Return the levels of some combination that a pattern's level means: itself, or an adapter's name all that have it."""
        possible = self._possible(path)
        if level in possible or path in self._unsure or self.recipe is None:
            return (level,)
        is_bare = isinstance(level, Use) and not level.settings.model_fields_set
        return tuple(
            other
            for other in possible
            if is_bare and isinstance(level, Use) and isinstance(other, Use) and other.name == level.name
        )

    def _possible(self, path: str) -> dict[Level, None]:
        """Return the levels of a path that a combination may have."""
        possible = dict.fromkeys(self._taken.get(path, ()))
        if path in self._always or self.recipe is None:
            return possible
        possible[base_level(self.recipe, path)] = None
        for owner, levels in self._taken.items():
            if is_setting_in(owner, path):
                possible |= dict.fromkeys(level_under(self.recipe, owner, level, path) for level in levels)
        return possible

    def _never_taken(self, where: str, path: str, level: Level) -> None:
        words = sorted(map(brief_level, self._possible(path)))
        what = f"no combination has the level {brief_level(level)}"
        self._add(Finding(where, what, "level_never_taken", closest(brief_level(level), words)))

    def _include(self, group: Plain, where: str) -> tuple[tuple[str, Level], ...]:
        levels: list[tuple[str, Level]] = []
        for path, here, given in self._entries(group, where):
            leaf = self._leaf(path, here)
            if leaf is not None:
                levels += [(leaf.path, level) for level in self._level(given, here, leaf)]
        return tuple(levels)


def _can_hold(patterns: tuple[Pattern, ...]) -> bool:
    """Tell whether patterns may match: after `--set`, some levels that they name may be gone."""
    return bool(patterns) and all(pattern.any_of for pattern in patterns)
