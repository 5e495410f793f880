"""`--set`: what it changes, and how it points at its own mistakes."""

from __future__ import annotations

from decimal import Decimal

import pytest

from engine.domain.adapters import Kind
from engine.spec.origins import base_level

from .reading import problems, read, use

GRID = """\
axes: {data.n: [10, 50], seed: [0, 1]}
zip: [{data.source: [file:a, file:b], tune.lr: [1e-3, 1e-4]}]
when: [{if: {data.n: 50}, axes: {tune.epochs: [1, 2]}}]
exclude: [{data.n: 50, seed: 1}]
"""


def shape(*overrides: str) -> tuple[dict[str, tuple], dict[str, object]]:
    """The axes, zips and whens by path after overrides, and the recipe's own values of the same paths."""
    sweep = read(GRID, *overrides).sweep
    axes = [*sweep.axes, *(a for z in sweep.zips for a in z), *(a for w in sweep.whens for a in w.axes)]
    own = {
        path.rpartition(".")[2]: base_level(sweep.recipe, path)
        for path in ("data.n", "tune.lr", "tune.epochs", "judges")
    }
    return {axis.path: axis.levels for axis in axes}, own


def test_set_a_list_makes_or_replaces_an_axis() -> None:
    axes, _ = shape("data.n=[5, 50]")
    assert list(axes) == ["data.n", "seed", "data.source", "tune.lr", "tune.epochs"]
    assert axes["data.n"] == (5, 50)
    assert shape("recipe.tune.rank=[4,8]")[0]["tune.rank"] == (4, 8)
    assert shape("axes.tune.lr=[1e-2]")[0]["tune.lr"] == (0.01,)
    assert list(shape("tune.lr=[1e-2]")[0]) == ["data.n", "seed", "tune.lr", "data.source", "tune.epochs"]


def test_set_a_scalar_pins_the_path_everywhere() -> None:
    axes, own = shape("data.n=7", "tune.epochs=9")
    assert list(axes) == ["seed", "data.source", "tune.lr"]
    assert (own["n"], own["epochs"]) == (7, 9)
    axes, own = shape("tune.lr=2e-3", "data.source=file:c")
    assert list(axes) == ["data.n", "seed", "tune.epochs"]
    assert own["lr"] == 0.002


def test_set_a_field_that_holds_a_list() -> None:
    a, b = use(Kind.JUDGE, "standin/rules"), use(Kind.JUDGE, "refusal/keywords")
    assert shape("judges=[standin/rules, refusal/keywords]")[1]["judges"] == (a, b)
    levels = shape("judges=[[standin/rules], [standin/rules, refusal/keywords]]")[0]["judges"]
    assert levels == ((a,), (a, b))
    assert read("", "mitigations=[]").sweep.recipe.mitigations == ()


def test_set_settings_and_later_overrides_win() -> None:
    sweep = read("", "run.budget.usd=2", "run.max_cells=7", "seed=1", "seed=2", "baselines=false", "sweep=other").sweep
    assert (sweep.run.budget.usd, sweep.run.max_cells, sweep.recipe.seed) == (Decimal(2), 7, 2)
    assert (sweep.baselines, sweep.sweep) == (False, "other")
    assert read("", "utility=", "generate.system=''").sweep.recipe.generate.system == ""


def test_set_does_not_turn_old_patterns_into_typos() -> None:
    assert not any(p.any_of for e in read(GRID, "data.n=10").sweep.excludes for p in e if p.path == "data.n")


@pytest.mark.parametrize(
    ("override", "place", "path", "code", "words"),
    [
        ("tune.lr", "1:1", "", "bad_override", "PATH=VALUE"),
        ("tune.lrr=1", "1:1", "tune.lrr", "unknown_path", "did you mean `tune.lr`"),
        ("exclude=[]", "1:1", "exclude", "unknown_path", "only axes can be set"),
        ("run.budget.usdd=1", "1:1", "run.budget.usdd", "unknown_field", "did you mean `usd`"),
        ("tune.lr=[1e-4, abc]", "1:16", "axes.tune.lr[1]", "wrong_type", "'abc'"),
        ("tune.lr=abc", "1:9", "recipe.tune.lr", "wrong_type", "'abc'"),
        ("axes.tune.lr=1e-4", "1:14", "axes.tune.lr", "wrong_type", "a list of levels"),
        ("tune.lr=[1e-4", "1:14", "tune.lr", "yaml_syntax", "not YAML"),
        ("generate.system=a: b", "1:17", "recipe.generate.system", "wrong_type", "put it in quotes"),
        ("seed=.nan", "1:6", "seed", "bad_number", "finite"),
    ],
)
def test_overrides_point_at_themselves(override: str, place: str, path: str, code: str, words: str) -> None:
    found = problems("", override)
    problem = found[0]
    assert (problem.position, problem.path, problem.code) == (f"--set:{place}", path, code)
    assert words in f"{problem.what} {problem.hint}"
    assert problem.excerpt == override
