"""The grid language against a second, plain implementation; and the loader against anything at all."""

from __future__ import annotations

import random
from itertools import product
from math import prod
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.domain.adapters import Use
from engine.domain.cell import Cell
from engine.domain.errors import SpecError
from engine.domain.sweep import Recipe
from engine.spec.expand import Expansion, count, expand
from engine.spec.load import read_sweep
from engine.spec.origins import base_level

Plain = dict[str, Any]

BASE: Plain = {"data.source": "file:a", "data.n": 1, "tune.epochs": 1, "tune.rank": 8, "tune.alpha": None, "seed": 0}
LEVELS: dict[str, list[Any]] = {
    "data.source": ["file:a", "file:b", "file:c"],
    "data.n": [1, 2, 3],
    "tune.epochs": [1, 2],
    "tune.rank": [4, 8],
    "tune.alpha": [None, 16],
    "seed": [0, 1, 2],
}
RECIPE: Plain = {
    "model": "standin/aligned",
    "data": {"source": "file:a", "n": 1},
    "tune": {"lr": 0.001, "epochs": 1, "rank": 8},
    "benchmark": "standin/policy",
    "judges": ["standin/rules"],
}


@st.composite
def grids(draw: st.DrawFn) -> Plain:
    """A grid that is well-formed; that a pattern matches nothing, or a path is swept twice, may still be."""
    paths = draw(st.permutations(sorted(BASE)))
    cuts = sorted(draw(st.lists(st.integers(0, len(paths)), min_size=2, max_size=2)))
    axis_paths, zip_paths, rest = paths[: cuts[0]], paths[cuts[0] : cuts[1]], paths[cuts[1] :]
    levels = {path: draw(st.permutations(LEVELS[path])) for path in paths}
    axes = {path: levels[path][: draw(st.integers(1, len(levels[path])))] for path in axis_paths}
    length = min((len(levels[path]) for path in zip_paths), default=0)
    zips = [{path: levels[path][:length] for path in zip_paths}] if zip_paths else []
    swept = axes | (zips[0] if zips else {})
    taken = {path: list(swept.get(path, [BASE[path]])) for path in BASE}

    def patterns() -> Plain:
        chosen = draw(st.lists(st.sampled_from(sorted(BASE)), min_size=1, max_size=2, unique=True))
        return {path: draw(st.lists(st.sampled_from(taken[path]), min_size=1, unique=True)) for path in chosen}

    whens = []
    for _ in range(draw(st.integers(0, 2)) if rest else 0):
        condition = patterns()
        own = draw(st.lists(st.sampled_from(rest), min_size=1, max_size=2, unique=True))
        given_axes = {path: levels[path][: draw(st.integers(1, len(levels[path])))] for path in own}
        whens.append({"if": condition, "axes": given_axes})
        for path, more in given_axes.items():
            taken[path] += [level for level in more if level not in taken[path]]
    excludes = [patterns() for _ in range(draw(st.integers(0, 2)))]
    includes = [
        {path: draw(st.sampled_from(LEVELS[path])) for path in chosen}
        for chosen in draw(st.lists(st.sets(st.sampled_from(sorted(BASE)), min_size=1, max_size=3), max_size=3))
    ]
    return {"axes": axes, "zip": zips, "when": whens, "exclude": excludes, "include": includes}


def matches(combination: Plain, patterns: Plain) -> bool:
    return all((BASE | combination)[path] in levels for path, levels in patterns.items())


def multiplied(combination: Plain, when: Plain, codes: set[str]) -> list[Plain]:
    if not matches(combination, when["if"]):
        return [combination]
    if when["axes"].keys() & combination.keys():
        codes.add("swept_twice")
        return [combination]
    every = product(*when["axes"].values())
    return [combination | dict(zip(when["axes"], levels, strict=True)) for levels in every]


def conditional(grid: Plain, codes: set[str]) -> list[Plain]:
    """Every combination before `exclude`."""
    combinations: list[Plain] = [{}]
    if grid["include"] and not (grid["axes"] or grid["zip"] or grid["when"]):
        combinations = []
    for factor in [{path: levels} for path, levels in grid["axes"].items()] + grid["zip"]:
        steps = list(zip(*factor.values(), strict=True))
        combinations = [c | dict(zip(factor, step, strict=True)) for c in combinations for step in steps]
    for when in grid["when"]:
        if not any(matches(c, when["if"]) for c in combinations):
            codes.add("never_matches")
        combinations = [more for c in combinations for more in multiplied(c, when, codes)]
    return combinations


def included(grid: Plain, kept: list[Plain]) -> list[Plain]:
    """What `include` makes of the combinations that `exclude` left."""
    added: list[Plain] = [{} for _ in kept]
    alone = []
    for include in grid["include"]:
        fitting = [i for i, c in enumerate(kept) if all(c[p] == level for p, level in include.items() if p in c)]
        for i in fitting:
            added[i] |= {path: level for path, level in include.items() if path not in kept[i]}
        if not fitting:
            alone.append(include)
    return [c | more for c, more in zip(kept, added, strict=True)] + alone


def reference(grid: Plain) -> tuple[list[tuple[Plain, Plain]], set[str], list[Plain]]:
    """Coordinates and values of every cell, the codes of what is wrong, and what `exclude` left."""
    codes: set[str] = set()
    combinations = conditional(grid, codes)
    if not all(any(matches(c, exclude) for c in combinations) for exclude in grid["exclude"]):
        codes.add("never_matches")
    kept = [c for c in combinations if not any(matches(c, exclude) for exclude in grid["exclude"])]
    cells = included(grid, kept)
    if not cells and not codes:
        codes.add("empty_grid")
    first: dict[tuple[Any, ...], tuple[Plain, Plain]] = {}
    for c in cells:
        first.setdefault(tuple((BASE | c).values()), (c, BASE | c))
    return list(first.values()), codes, kept


def spec(grid: Plain) -> bytes:
    return yaml.safe_dump({"sweep": "p", "recipe": RECIPE, **grid}, sort_keys=False).encode()


def expanded(raw: bytes) -> Expansion:
    loaded = read_sweep(raw, "p.yaml")
    return expand(loaded.sweep, loaded.positions)


def values(recipe: Recipe) -> Plain:
    levels = {path: base_level(recipe, path) for path in BASE}
    return {path: str(level) if isinstance(level, Use) else level for path, level in levels.items()}


def coordinates(cell: Cell) -> Plain:
    return {path: str(level) if isinstance(level, Use) else level for path, level in cell.coordinates}


@settings(deadline=None, max_examples=150)
@given(grids())
def test_cells_are_those_of_the_plain_implementation(grid: Plain) -> None:
    cells, codes, kept = reference(grid)
    if codes:
        with pytest.raises(SpecError) as caught:
            expanded(spec(grid))
        assert {problem.code for problem in caught.value.problems} == codes
        assert all(problem.line > 1 for problem in caught.value.problems)
        return
    expansion = expanded(spec(grid))
    assert [(coordinates(cell), values(cell.recipe)) for cell in expansion.cells] == cells
    assert len({cell.recipe for cell in expansion.cells}) == len(expansion.cells)
    counts = expansion.counts
    assert counts.conditional - counts.excluded == len(kept)
    assert counts.conditional - counts.excluded + counts.included - counts.merged == counts.tuned == len(cells)
    assert counts.extended == sum(len(c) < len(done) for c, done in zip(kept, included(grid, kept), strict=False))
    assert counts.included == len(included(grid, kept)) - len(kept)
    assert all(len(dict(cell.coordinates)) == len(cell.coordinates) for cell in expansion.cells)
    lists_cells = grid["include"] and not (grid["axes"] or grid["zip"] or grid["when"])
    assert counts.product == (0 if lists_cells else prod(map(len, grid["axes"].values())))
    assert counts.product * counts.zipped == count(read_sweep(spec(grid), "p.yaml").sweep)
    assert not any(matches(dict(c), exclude) for c in kept for exclude in grid["exclude"])


@settings(deadline=None, max_examples=30)
@given(grids(), st.randoms(use_true_random=False))
def test_the_order_of_keys_changes_no_content(grid: Plain, rng: random.Random) -> None:
    def shuffled(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: shuffled(node[key]) for key in rng.sample(sorted(node), len(node))}
        return node

    try:
        one = expanded(spec(grid))
    except SpecError:
        return
    other = expanded(spec(shuffled(grid)))
    assert {cell.recipe for cell in one.cells} == {cell.recipe for cell in other.cells}
    assert one.counts == other.counts


def must_load_or_say_where(raw: bytes, *overrides: str) -> None:
    lines = raw.count(b"\n") + raw.count(b"\r") + 3 * len(raw)  # no fewer than there are, however they end
    try:
        read_sweep(raw, "p.yaml", overrides)
    except SpecError as error:
        for problem in error.problems:
            assert 1 <= problem.line <= lines + 1
            assert problem.column >= 1
            assert problem.code
            assert problem.what
            assert str(problem).replace("\n", "").isprintable()


WORDS = (
    "sweep",
    "recipe",
    "axes",
    "zip",
    "when",
    "if",
    "exclude",
    "include",
    "run",
    "tune.lr",
    "data.n",
    "judges",
    "use",
    "tune",
    "tune.use",
    "mitigations",
    "mix",
    "n",
    "x",
)
yaml_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(WORDS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=4),
    max_leaves=12,
)


@settings(deadline=None, max_examples=100)
@given(st.binary(max_size=200))
def test_random_bytes_are_refused_with_a_position(raw: bytes) -> None:
    must_load_or_say_where(raw)


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(WORDS), yaml_values), st.text(max_size=20))
def test_random_yaml_is_refused_with_a_position(node: Plain, override: str) -> None:
    must_load_or_say_where(yaml.safe_dump(node).encode(), override, f"tune.lr={override}")


@settings(deadline=None, max_examples=100)
@given(grids(), st.data())
def test_a_spec_with_a_slip_of_the_pen_is_refused_with_a_position(grid: Plain, data: st.DataObject) -> None:
    raw = spec(grid)
    at = data.draw(st.integers(0, len(raw)))
    slip = data.draw(st.sampled_from([b"", b"\t", b":", b"- ", b"*a", b"&a ", b"!", b"[", b"}", b"'", b"\n", b"\xff"]))
    must_load_or_say_where(raw[:at] + slip + raw[at + data.draw(st.integers(0, 3)) :])
