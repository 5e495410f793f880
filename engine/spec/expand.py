"""Sweep to Cells: pure, in a fixed order, and with the proof of how many there are.

    axes x zips → when → exclude → include → recipes → equal recipes merged

A combination is a tuple of (path, level) pairs, axes and zips first; the pairs are shared, so that 100,000
combinations are little more than pointers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, product
from math import prod
from typing import TypeAlias

from engine.domain.cell import Cell
from engine.domain.plan import Counts
from engine.domain.sweep import Axis, Level, Pattern, Sweep, When
from engine.spec.origins import base_level, is_setting_in, level_under, swept
from engine.spec.positions import NOWHERE, Positions, Problems
from engine.spec.recipes import Combination, Pair, RecipeBook

Matches: TypeAlias = Callable[[Combination], bool]


@dataclass(frozen=True, slots=True)
class Expansion:
    """The cells of a sweep, baselines not among them.

    Attributes:
        cells: In grid order; no two have the same recipe.
        counts: How their number came about.
    """

    cells: tuple[Cell, ...]
    counts: Counts


def count(sweep: Sweep) -> int:
    """Return the combinations of axes and zips, by multiplication alone: 10^12 of them take no time."""
    return _product(sweep) * _zipped(sweep)


def _product(sweep: Sweep) -> int:
    # As in a GitHub Actions matrix: where nothing but `include` lists the cells, there is nothing it could extend.
    lists_cells = sweep.includes and not (sweep.axes or sweep.zips or sweep.whens)
    return 0 if lists_cells else prod(len(axis.levels) for axis in sweep.axes)


def _zipped(sweep: Sweep) -> int:
    return prod(len(axes[0].levels) for axes in sweep.zips)


def expand(sweep: Sweep, positions: Positions = NOWHERE) -> Expansion:
    """Return every cell of a sweep, in grid order: the last axis varies fastest.

    Raises:
        SpecError: There are more than `run.max_cells` combinations, or none; an `exclude` or `when` matches none; a
            combination sweeps a path twice; or a recipe contradicts itself.
    """
    problems = Problems()
    grid = _Grid(sweep, positions, problems)
    grid.limit(count(sweep))
    conditional = grid.conditional(_combinations(sweep))
    kept = grid.kept(conditional)
    problems.stop_if_any()
    extended, added, alone = grid.included(kept)
    if not extended and not alone:
        what, hint = "every combination is excluded", "nothing is left to run: exclude less"
        problems.add(positions.problem("exclude", what, code="empty_grid", hint=hint))
    problems.stop_if_any()
    cells = RecipeBook(sweep, positions, problems).cells(chain(extended, alone))
    problems.stop_if_any()
    counts = Counts(
        product=_product(sweep),
        zipped=_zipped(sweep),
        conditional=len(conditional),
        excluded=len(conditional) - len(kept),
        included=len(alone),
        extended=added,
        merged=len(kept) + len(alone) - len(cells),
        tuned=len(cells),
        baselines=0,
    )
    return Expansion(cells, counts)


def _combinations(sweep: Sweep) -> list[Combination]:
    """Return the product of axes and zips."""
    if not _product(sweep):
        return []
    factors: list[list[Combination]] = [_columns((axis,)) for axis in sweep.axes]
    factors += [_columns(axes) for axes in sweep.zips]
    return [tuple(chain.from_iterable(pieces)) for pieces in product(*factors)]


def _columns(axes: Sequence[Axis]) -> list[Combination]:
    """Return the pairs of axes that are walked together, one combination a step."""
    pairs = ([(axis.path, level) for level in axis.levels] for axis in axes)
    return list(zip(*pairs, strict=True))


class _Grid:
    """The steps between the product and the recipes."""

    def __init__(self, sweep: Sweep, positions: Positions, problems: Problems) -> None:
        self.sweep = sweep
        self.positions = positions
        self.problems = problems
        paths = [axis.path for axis in chain(sweep.axes, *sweep.zips)]
        self._owners: dict[str, tuple[str, ...]] = {}
        self.index = {path: index for index, path in enumerate(paths)}  # the same in every combination

    def limit(self, combinations: int, *, at_least: bool = False) -> None:
        """Refuse more combinations than `run.max_cells`, before they are built."""
        most = self.sweep.run.max_cells
        if combinations <= most:
            return
        section = next((name for name in ("axes", "zip", "when") if name in self.positions.keys), "axes")
        words = f"at least {combinations:,}" if at_least else f"{combinations:,}"
        what = f"{words} combinations before `exclude`, and `run.max_cells` is {most:,}"
        hint = "drop levels, or raise `run.max_cells`" + ("" if at_least else f" to {combinations}")
        self.problems.add(self.positions.problem(section, what, code="too_many_cells", hint=hint))
        self.problems.stop_if_any()

    def level(self, combination: Combination, path: str) -> Level:
        """Return the combination's level at `path`: swept, or the recipe's own."""
        if path in self.index:
            return combination[self.index[path]][1]
        for other, level in combination[len(self.index) :]:
            if other == path:
                return level
        for owner in self.owners(path):  # an axis of whole adapters changes the levels of their settings
            for other, level in combination:
                if other == owner:
                    return level_under(self.sweep.recipe, owner, level, path)
        return base_level(self.sweep.recipe, path)

    def owners(self, path: str) -> tuple[str, ...]:
        """Return the swept places of adapters of which `path` is a setting, the innermost first."""
        if path not in self._owners:
            found = [
                place for place in dict.fromkeys(item.path for item in swept(self.sweep)) if is_setting_in(place, path)
            ]
            self._owners[path] = tuple(sorted(found, key=len, reverse=True))
        return self._owners[path]

    def matcher(self, patterns: Sequence[Pattern]) -> Matches:
        """Return a function that tells whether a combination matches every pattern."""
        allowed = [(pattern.path, frozenset(pattern.any_of)) for pattern in patterns]
        fixed = [(self.index[path], levels) for path, levels in allowed if path in self.index]
        loose = [(path, levels) for path, levels in allowed if path not in self.index]

        def matches(combination: Combination) -> bool:
            return all(combination[index][1] in levels for index, levels in fixed) and all(
                self.level(combination, path) in levels for path, levels in loose
            )

        return matches

    def conditional(self, combinations: list[Combination]) -> list[Combination]:
        """Apply the `when` axes, one `when` after the other."""
        for number, when in enumerate(self.sweep.whens):
            combinations = self.applied(when, f"when[{number}]", combinations)
        return combinations

    def applied(self, when: When, where: str, combinations: list[Combination]) -> list[Combination]:
        """Multiply the combinations that match one `when`."""
        matches = self.matcher(when.patterns)
        size = prod(len(axis.levels) for axis in when.axes)
        pieces: list[Combination] = []
        result: list[Combination] = []
        for combination in combinations:
            if not matches(combination) or self.swept_twice(when, where, combination):
                result.append(combination)
            else:
                self.limit(len(result) + size, at_least=True)
                pieces = pieces or [tuple(chain(*piece)) for piece in product(*(_columns((a,)) for a in when.axes))]
                result += [combination + piece for piece in pieces]
        if len(result) == len(combinations) and not any(map(matches, combinations)):
            self.matches_none(when.patterns, where)
        return result

    def swept_twice(self, when: When, where: str, combination: Combination) -> bool:
        """Refuse a `when` axis that an earlier `when` has already given to a matching combination."""
        loose = {path for path, _ in combination[len(self.index) :]}
        twice = [axis.path for axis in when.axes if axis.path in loose]
        for path in twice:
            what = "an earlier `when` already sweeps this path in a combination that matches both"
            hint = "make the two conditions exclude each other"
            self.problems.add(self.positions.problem(f"{where}.axes.{path}", what, code="swept_twice", hint=hint))
        return bool(twice)

    def matches_none(self, patterns: Sequence[Pattern], where: str) -> None:
        """Refuse a condition that no combination meets, unless `--set` has taken away what it was for."""
        changed = any(not p.any_of or p.path in self.positions.overridden for p in patterns)
        if not changed:
            message = "no combination matches this: each level occurs, but never together"
            self.problems.add(self.positions.problem(where, message, code="never_matches"))

    def kept(self, combinations: list[Combination]) -> list[Combination]:
        """Drop what `exclude` matches; each exclude must match something, dropped by another or not."""
        excludes = [(patterns, self.matcher(patterns)) for patterns in self.sweep.excludes]
        dropped: set[int] = set()
        for number, (patterns, matches) in enumerate(excludes):
            matched = [index for index, combination in enumerate(combinations) if matches(combination)]
            dropped.update(matched)
            if not matched:
                self.matches_none(patterns, f"exclude[{number}]")
        return [c for index, c in enumerate(combinations) if index not in dropped] if dropped else combinations

    def included(self, kept: list[Combination]) -> tuple[list[Combination], int, list[Combination]]:
        """Apply `include` with the semantics of a GitHub Actions matrix.

        Source: https://docs.github.com/en/actions, "Running variations of jobs in a workflow", read 2026-11.

        Returns:
            The combinations with their added levels, how many have any, and the combinations of includes that fit
            none of them.
        """
        added: dict[int, dict[str, Pair]] = {}
        alone: list[Combination] = []
        for include in self.sweep.includes:
            levels = dict(include)
            fits = False
            for index, combination in enumerate(kept):
                if all(levels.get(path, level) == level for path, level in combination):
                    fits = True
                    own = {path for path, _ in combination}
                    new = {pair[0]: pair for pair in include if pair[0] not in own}
                    if new:
                        added.setdefault(index, {}).update(new)
            if not fits:
                alone.append(include)
        rank = {path: number for number, path in enumerate(dict.fromkeys(item.path for item in swept(self.sweep)))}

        def ordered(pairs: Iterable[Pair]) -> Combination:
            """In the order in which the spec first sweeps the paths."""
            return tuple(sorted(pairs, key=lambda pair: rank[pair[0]]))

        extended = [ordered((*c, *added[index].values())) if index in added else c for index, c in enumerate(kept)]
        return extended, len(added), list(map(ordered, alone))
