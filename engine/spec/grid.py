"""The grid language: `axes`, `zip`, `when`, `exclude` and `include`, from nodes to the Sweep's own types.

Every level is validated by the field that it is for, and every pattern must be able to hold: a typo in `exclude`
would otherwise buy cells that nobody wanted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from pydantic import ValidationError

from engine.domain.adapters import Use
from engine.domain.sweep import Axis, Exclude, Include, Level, Pattern, Recipe, When, Zip
from engine.spec.leaves import INLINE, Leaf, Leaves
from engine.spec.messages import Finding, ambiguous, brief_level, closest, findings, unknown_path, wrong_type
from engine.spec.origins import base_level, is_setting_in, level_under, missing_section
from engine.spec.positions import Positions, Problems
from engine.spec.yaml_nodes import Entry, Mapping, Node, Scalar, Sequence, join


@dataclass(frozen=True, slots=True)
class Grid:
    """Everything but the recipe that decides which cells there are."""

    axes: tuple[Axis, ...]
    zips: tuple[Zip, ...]
    whens: tuple[When, ...]
    excludes: tuple[Exclude, ...]
    includes: tuple[Include, ...]


@dataclass(slots=True)
class GridReader:
    """Reads the grid of one spec, top to bottom, and remembers which levels each path takes.

    Attributes:
        root: The whole spec.
        leaves: What it may sweep.
        recipe: The base recipe, or None when it is not valid itself.
        positions: Where everything stands.
        problems: Receives what is wrong.
    """

    root: Mapping
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
        axes = self._product(self._value("axes"), "axes", always=True) if self._given("axes") else ()
        zips = tuple(self._zip(node, where) for where, node in self._items("zip"))
        whens = tuple(self._when(node, where) for where, node in self._items("when"))
        excludes = tuple(Exclude(patterns=self._patterns(node, where)) for where, node in self._items("exclude"))
        includes = tuple(self._include(node, where) for where, node in self._items("include"))
        for finding in self._doubtful if not self.problems.found else ():
            self._add(finding)
        return Grid(
            axes,
            tuple(z for z in zips if z.axes),
            tuple(when for when in whens if _can_hold(when.patterns)),
            tuple(exclude for exclude in excludes if _can_hold(exclude.patterns)),
            includes,
        )

    def _add(self, finding: Finding) -> None:
        mark = self.positions.mark(finding.path, key=finding.at_key)
        self.problems.add(mark.problem(finding.path, finding.what, code=finding.code, hint=finding.hint))

    def _value(self, key: str) -> Node:
        entry = self.root.get(key)
        return entry.value if entry is not None else Scalar(None, self.root.mark)

    def _given(self, key: str) -> bool:
        """Tell whether a section has something in it; `axes:` with every line commented out has not."""
        node = self._value(key)
        return not (isinstance(node, Scalar) and node.value is None) and not (
            isinstance(node, Mapping) and key == "axes" and not node.entries
        )

    def _items(self, key: str) -> Iterator[tuple[str, Node]]:
        node = self._value(key)
        if not self._given(key):
            return
        if not isinstance(node, Sequence):
            finding = wrong_type(key, "a list", node.plain)
            hint = "begin each item with `- `" if isinstance(node, Mapping) else ""
            self._add(Finding(key, finding.what, finding.code, hint))
            return
        for index, item in enumerate(node.items):
            yield f"{key}[{index}]", item

    def _entries(self, node: Node, where: str) -> tuple[Entry, ...]:
        if not isinstance(node, Mapping):
            self._add(wrong_type(where, "a mapping of paths", node.plain))
            return ()
        if not node.entries:
            self._add(Finding(where, "nothing is given here", "empty"))
        return node.entries

    def _leaf(self, path: str, where: str) -> Leaf | None:
        """Return the field that a key names, or None when it names none that can be swept."""
        leaf = self.leaves.get(path)
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

    def _axes(self, node: Node, where: str, *, always: bool) -> tuple[Axis, ...]:
        """Return the axes in a mapping of path to levels."""
        axes = [self._axis(entry, join(where, entry.key), always=always) for entry in self._entries(node, where)]
        return tuple(axis for axis in axes if axis is not None)

    def _product(self, node: Node, where: str, *, always: bool) -> tuple[Axis, ...]:
        """Return the axes in a mapping of path to levels, each level once."""
        axes = self._axes(node, where, always=always)
        for axis in axes:
            self._once((axis,), where)
        return axes

    def _axis(self, entry: Entry, where: str, *, always: bool) -> Axis | None:
        leaf = self._leaf(entry.key, where)
        if leaf is None:
            return None
        if leaf.path in self._always:
            other = self._always[leaf.path]
            what = f"`{leaf.path}` is already swept by `{other}`"
            self._add(Finding(where, what, "swept_twice", "remove one of the two", at_key=True))
        elif always:
            self._always[leaf.path] = where
        levels = self._levels(entry.value, where, leaf)
        self._taken.setdefault(leaf.path, {}).update(dict.fromkeys(levels))
        return Axis(path=leaf.path, levels=levels)

    def _levels(self, node: Node, where: str, leaf: Leaf) -> tuple[Level, ...]:
        """Return an axis' levels."""
        if not isinstance(node, Sequence):
            finding = wrong_type(where, "a list of levels", node.plain)
            hint = "write the levels in brackets: [1, 2]; one value for all cells belongs in `recipe`"
            self._add(Finding(where, finding.what, finding.code, hint))
            self._unsure.add(leaf.path)
            return ()
        if not node.items:
            self._add(Finding(where, "an axis needs at least one level", "empty_axis"))
            self._unsure.add(leaf.path)
        levels = [self._level(item, f"{where}[{index}]", leaf) for index, item in enumerate(node.items)]
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

    def _level(self, node: Node, where: str, leaf: Leaf, *, is_pattern: bool = False) -> tuple[Level, ...]:
        """Return the level in a tuple of its own, or an empty tuple when it is not one."""
        try:
            return (leaf.level(node.plain, is_pattern=is_pattern),)
        except ValidationError as error:
            self._unsure.add(leaf.path)
            found = list(findings(error, where))
            # Of `tune.use` and `generate.use`, the recipe and other axes may give what is missing.
            others = [
                finding for finding in found if leaf.path not in INLINE.values() or finding.code != "missing_field"
            ]
            for finding in others or found:
                is_flat = leaf.holds_list and not isinstance(node, Sequence)
                hint = f"a level of `{leaf.path}` is itself a list: [[a], [b, c]]" if is_flat else finding.hint
                self._add(Finding(finding.path, finding.what, finding.code, hint))
            return ()

    def _zip(self, node: Node, where: str) -> Zip:
        axes = self._axes(node, where, always=True)
        for axis in axes[1:]:
            if len(axis.levels) != len(axes[0].levels) and not self._unsure & {axis.path, axes[0].path}:
                what = f"{len(axis.levels)} levels, but `{axes[0].path}` beside it has {len(axes[0].levels)}"
                hint = "zipped axes are walked together and need equal lengths"
                self._add(Finding(join(where, axis.path), what, "unequal_zip", hint, at_key=True))
        self._once(axes, where)
        return Zip(axes=axes)

    def _when(self, node: Node, where: str) -> When:
        if not isinstance(node, Mapping):
            self._add(wrong_type(where, "a mapping with `if` and `axes`", node.plain))
            return When(patterns=(), axes=())
        for entry in node.entries:
            if entry.key not in {"if", "axes"}:
                hint = closest(entry.key, ["if", "axes"])
                self._add(Finding(join(where, entry.key), "no such field", "unknown_field", hint, at_key=True))
        condition, axes = node.get("if"), node.get("axes")
        for key in ("if", "axes"):
            if node.get(key) is None:
                self._add(Finding(f"{where}.{key}", "this field is required", "missing_field"))
        return When(
            patterns=self._patterns(condition.value, f"{where}.if") if condition is not None else (),
            axes=self._product(axes.value, f"{where}.axes", always=False) if axes is not None else (),
        )

    def _patterns(self, node: Node, where: str) -> tuple[Pattern, ...]:
        patterns: list[Pattern] = []
        for entry in self._entries(node, where):
            here = join(where, entry.key)
            leaf = self._leaf(entry.key, here)
            if leaf is not None:
                patterns.append(Pattern(path=leaf.path, any_of=self._any_of(entry.value, here, leaf)))
        return tuple(patterns)

    def _any_of(self, node: Node, where: str, leaf: Leaf) -> tuple[Level, ...]:
        """Return the levels of a pattern that some combination has; a level that none has is a typo."""
        levels: dict[Level, None] = {}
        for here, item in _alternatives(node, where, leaf):
            for level in self._level(item, here, leaf, is_pattern=True):
                taken = self._meant(leaf.path, level)
                levels |= dict.fromkeys(taken)
                if not taken and leaf.path not in self.positions.overridden:
                    self._never_taken(here, leaf.path, level)
        if isinstance(node, Sequence) and not node.items and not leaf.holds_list:
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

    def _include(self, node: Node, where: str) -> Include:
        levels: list[tuple[str, Level]] = []
        for entry in self._entries(node, where):
            here = join(where, entry.key)
            leaf = self._leaf(entry.key, here)
            if leaf is not None:
                levels += [(leaf.path, level) for level in self._level(entry.value, here, leaf)]
        return Include(levels=tuple(levels))


def _alternatives(node: Node, where: str, leaf: Leaf) -> Iterator[tuple[str, Node]]:
    """Yield the levels of a pattern: one level, or a list of them. A level of a list field is itself a list."""
    is_many = isinstance(node, Sequence) and (
        not leaf.holds_list or (node.items and all(isinstance(item, Sequence) for item in node.items))
    )
    if is_many and isinstance(node, Sequence):
        for index, item in enumerate(node.items):
            yield f"{where}[{index}]", item
    else:
        yield where, node


def _can_hold(patterns: tuple[Pattern, ...]) -> bool:
    """Tell whether patterns may match: after `--set`, some levels that they name may be gone."""
    return bool(patterns) and all(pattern.any_of for pattern in patterns)
