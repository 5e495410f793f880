"""Settings of adapters as axes: levels of whole adapters first, then those of settings; and `--set` on both."""

from __future__ import annotations

import pytest

from engine.domain.sweep import Level, Recipe
from engine.spec.origins import base_level

from .toy import TOY, expanded, labels, problems, the_problem

pytestmark = pytest.mark.usefixtures("toy_adapters")

SCALES = "axes: {mitigations: [[], [{use: toy/scale, a: 0.5}]], mitigations.toy/scale.a: [0, 0.5, 1]}"
TWO_TUNERS = "zip: [{tune.use: [toy/steady, toy/other], tune.lr: [1e-3, null], tune.lr_multiplier: [null, 2]}]"


def levels(path: str, more: str = "", *overrides: str, base: str = TOY) -> list[Level]:
    return [base_level(cell.recipe, path) for cell in expanded(more, *overrides, base=base).cells]


def tunes(*args: str, base: str = TOY) -> list[str]:
    return [str(tune.use) for tune in recipe_tunes(*args, base=base)]


def recipe_tunes(*args: str, base: str) -> list[Recipe]:
    found = [cell.recipe.tune for cell in expanded(*args, base=base).cells]
    return [tune for tune in found if tune is not None]


def test_settings_of_every_kind_of_adapter_are_axes() -> None:
    grid = """\
        axes:
          model.layers: [1, 2]
          data.source.column: [text, body]
          tune.targets: [[q], [q, v]]
          benchmark.n: [5, null]
          generate.dtype: [float32, bfloat16]
          judges.toy/v1.0-beta.threshold: [0.25, 0.75]
          judges.toy/v1.0-beta.model: [null, "toy/model:judge"]
        """
    base = TOY.replace("[toy/strict]", "[toy/strict, toy/v1.0-beta]")
    cells = expanded(grid, base=base).cells
    assert len({cell.recipe for cell in cells}) == len(cells) == 2**7
    last = cells[-1].recipe
    assert [str(judge) for judge in last.judges] == ["toy/strict", "toy/v1.0-beta:toy/model:judge(threshold=0.75)"]
    assert (base_level(last, "tune.targets"), base_level(last, "benchmark.n")) == (("q", "v"), None)
    assert (
        cells[0].label.endswith("threshold=0.25 judges.toy/v1.0-beta.model=none") or "threshold=0.25" in cells[0].label
    )


def test_an_adapter_whose_name_begins_with_anothers_gets_its_own_levels() -> None:
    base = TOY.replace("[toy/strict]", "[toy/v1, toy/v1.0-beta]")
    grid = "axes: {judges.toy/v1.0-beta.threshold: [0.25, 0.75]}\n"
    assert levels("judges.toy/v1.0-beta.threshold", grid, base=base) == [0.25, 0.75]
    nested = base.replace("toy/v1.0-beta]", "{use: toy/v1.0-beta, threshold: 0.25}]")
    assert levels("judges.toy/v1.0-beta.threshold", base=nested) == [0.25]


def test_a_level_for_an_adapter_that_a_combination_lacks_changes_nothing() -> None:
    expansion = expanded(SCALES)
    assert [[str(use) for use in cell.recipe.mitigations] for cell in expansion.cells] == [
        [],
        ["toy/scale:0.0"],
        ["toy/scale:0.5"],
        ["toy/scale:1.0"],
    ]
    assert (expansion.counts.product, expansion.counts.merged, expansion.counts.tuned) == (6, 2, 4)
    optional = "axes: {utility: [null, toy/prompts], utility.n: [3, 4]}"
    assert [str(cell.recipe.utility) for cell in expanded(optional).cells] == [
        "None",
        "toy/prompts(n=3)",
        "toy/prompts(n=4)",
    ]


def test_nothing_leaves_out_a_setting_that_another_adapter_lacks() -> None:
    assert tunes(TWO_TUNERS) == ["toy/steady(lr=0.001)", "toy/other(lr_multiplier=2)"]
    assert tunes(TWO_TUNERS.replace("tune.use", "tune.adapter")) == tunes(TWO_TUNERS)


def test_a_level_that_the_combinations_adapter_lacks_belongs_under_when() -> None:
    base = TOY.replace("{use: toy/steady, lr: 1e-3}", "toy/other").replace("tune: toy/other", "tune: {use: toy/other}")
    problem = the_problem("axes: {tune.use: [toy/other, {use: toy/steady, lr: 0.1}], tune.beta: [1]}", base=base)
    assert (problem.position, problem.path, problem.code) == ("x.yaml:11:71", "axes.tune.beta[0]", "no_such_setting")
    assert "`toy/steady` has no setting `beta`" in problem.what
    assert "{if: {tune.use: toy/other}, axes: {tune.beta: [...]}}" in problem.hint
    mended = """\
        axes: {tune.use: [toy/other, {use: toy/steady, lr: 0.1}]}
        when: [{if: {tune.use: toy/other}, axes: {tune.beta: [1, 2]}}]
        """
    assert tunes(mended, base=base) == ["toy/other(beta=1)", "toy/other(beta=2)", "toy/steady(lr=0.1)"]


def test_nothing_means_the_default_unless_the_field_takes_it() -> None:
    base = TOY.replace("lr: 1e-3", "lr: 1e-3, rank: 4").replace("toy/prompts", "{use: toy/prompts, n: 5}")
    assert levels("tune.rank", "axes: {tune.rank: [null, 4, 2]}", base=base) == [8, 4, 2]
    assert levels("benchmark.n", "axes: {benchmark.n: [null, 5]}", base=base) == [None, 5]
    problem = the_problem("axes: {tune.lr: [null]}")
    assert (problem.position, problem.code) == ("x.yaml:11:18", "missing_field")
    assert "`tune.lr` is required" in problem.what


def test_what_the_recipe_sets_is_carried_over_to_another_adapter() -> None:
    base = TOY.replace("lr: 1e-3", "lr: 1e-3, rank: 8, epochs: 2")  # 8 is the default here, and not there
    grid = "zip: [{tune.use: [toy/steady, toy/other, {use: toy/other, rank: 2}], tune.lr: [0.1, null, null]}]"
    assert tunes(grid, base=base) == ["toy/steady(lr=0.1)", "toy/other(rank=8)", "toy/other(rank=2)"]
    assert [tune.length.epochs for tune in recipe_tunes(grid, base=base)] == [2, 2, 2]


def test_what_the_recipe_sets_and_another_adapter_lacks_is_said_where_it_stands() -> None:
    problem = the_problem("axes: {tune.use: [toy/steady, toy/other]}")
    assert (problem.position, problem.path, problem.code) == ("x.yaml:5:31", "recipe.tune.lr", "no_such_setting")
    assert "`toy/other`, a level of `tune.use`, has no setting `lr`" in problem.what
    assert "`zip` `tune.lr` with `tune.use`" in problem.hint
    base = TOY.replace("lr: 1e-3", "lr: 1e-3, targets: [q]")
    found = problems("zip: [{tune.use: [toy/steady, toy/other], tune.lr: [0.1, null]}]", base=base)
    assert [problem.path for problem in found] == ["recipe.tune.targets"]
    assert "write it into the levels that have it: `{use: toy/steady, targets: ...}`" in found[0].hint
    default = TOY.replace("lr: 1e-3", "lr: 1e-3, method: lora")  # says no more than the default: as good as unwritten
    assert len(tunes(TWO_TUNERS, base=default)) == 2


def test_a_level_need_not_have_what_the_recipe_or_an_axis_gives() -> None:
    base = TOY.replace("{use: toy/steady, lr: 1e-3}", "{use: toy/other}")
    given = "axes: {tune.use: [toy/steady, {use: toy/steady, rank: 2}], tune.lr: [0.1]}"
    assert tunes(given, base=base) == ["toy/steady(lr=0.1)", "toy/steady(lr=0.1, rank=2)"]
    problem = the_problem("axes: {tune.use: [toy/other, toy/steady]}", base=base)
    assert (problem.position, problem.code) == ("x.yaml:11:30", "missing_field")
    assert "`tune.lr` is required" in problem.what
    wrong = the_problem("axes: {tune.use: [{use: toy/steady, rank: 99}]}", base=base)
    assert (wrong.position, wrong.path) == ("x.yaml:11:43", "axes.tune.use[0].rank")


def test_a_recipe_need_not_have_a_setting_that_every_combination_sweeps() -> None:
    base = TOY.replace(", lr: 1e-3", "")
    assert tunes("axes: {tune.lr: [0.1, 0.2]}", base=base) == ["toy/steady(lr=0.1)", "toy/steady(lr=0.2)"]
    assert len(tunes(TWO_TUNERS, base=base)) == 2
    assert levels(
        "tune.lr", "axes: {tune.lr: [0.1]}\nwhen: [{if: {tune.use: toy/steady}, axes: {seed: [1]}}]", base=base
    )
    elsewhere = "axes: {tune.lr: [0.1]}\ninclude: [{tune.lr: 0.2, seed: 1}]"
    assert levels("tune.lr", elsewhere, base=base) == [0.1, 0.2]
    lacking = the_problem("when: [{if: {seed: 0}, axes: {tune.lr: [0.1]}}]", base=base)
    assert (lacking.position, lacking.path, lacking.code) == ("x.yaml:5:3", "recipe.tune.lr", "missing_field")
    found = problems("axes: {tune.lr: [0.1], tune.rank: [1]}", base=base.replace("toy/steady", "toy/steady, rank: 99"))
    assert [problem.path for problem in found] == ["recipe.tune.lr", "recipe.tune.rank"]
    outside = "axes: {tune.lr: [0.1]}\nexclude: [{tune.lr: 0.1}]\ninclude: [{seed: 3}, {tune.epochs: 3}]"
    alone = problems(outside, base=base)
    assert {problem.code for problem in alone} == {"missing_field"}
    assert [problem.position for problem in alone] == ["x.yaml:5:3", "x.yaml:13:36"]


def test_a_level_is_held_to_the_adapter_that_gets_it() -> None:
    base = TOY.replace("{use: toy/steady, lr: 1e-3}", "{use: toy/other}")
    grid = "axes: {tune.use: [{use: toy/steady, lr: 0.1}, toy/other], tune.rank: [4, 32]}"
    problem = the_problem(grid, base=base)  # 32 is fine for one of the two
    assert (problem.position, problem.path) == ("x.yaml:11:74", "axes.tune.rank[1]")
    assert problem.what == "with tune.use=toy/other tune.rank=32: must be at most 16 (got 32)"
    both = the_problem(grid.replace("32", "x"), base=base)
    assert (both.position, both.code) == ("x.yaml:11:74", "wrong_type")


def test_settings_that_exclude_each_other_are_placed_at_a_level() -> None:
    problem = the_problem("axes: {tune.rank: [4], tune.method: [lora, full]}")
    assert (problem.position, problem.code) == ("x.yaml:11:44", "inconsistent")
    assert problem.what == "with tune.rank=4 tune.method=full: `rank` belongs to `lora`"


def test_a_path_to_an_adapter_that_stands_twice_is_refused() -> None:
    twice = "[toy/strict]\n  mitigations: [toy/scale:0.5, toy/scale:0.25]"
    base = TOY.replace("[toy/strict]", twice)
    assert len(expanded(base=base).cells[0].recipe.mitigations) == 2
    problem = the_problem("axes: {mitigations.toy/scale.a: [0, 1]}", base=base)
    assert (problem.position, problem.code) == ("x.yaml:12:8", "ambiguous_path")
    assert "levels of the whole list" in problem.hint
    (override,) = problems("", "mitigations.toy/scale.a=1", base=base)
    assert (override.position, override.code) == ("--set:1:1", "ambiguous_path")
    assert len(labels("axes: {mitigations: [[toy/scale:0.5], [toy/scale:1]], mitigations.toy/scale.a: [0, 1]}")) == 2


def test_patterns_see_settings_that_nothing_sweeps() -> None:
    grid = """\
        axes: {mitigations: [[], [{use: toy/scale, a: 0.5}], [{use: toy/scale, a: 1}]], seed: [0, 1]}
        exclude: [{mitigations.toy/scale.a: 1, seed: 1}, {mitigations: [[]], seed: 0}]
        """
    assert labels(grid) == [
        "mitigations=none seed=1",
        "mitigations=toy/scale:0.5 seed=0",
        "mitigations=toy/scale:0.5 seed=1",
        "mitigations=toy/scale:1.0 seed=0",
    ]
    carried = """\
        zip: [{tune.use: [toy/steady, toy/other], tune.lr: [0.1, null]}]
        when: [{if: {tune.method: lora}, axes: {tune.rank: [1, 2]}}, {if: {tune.beta: 0.1}, axes: {tune.beta: [1]}}]
        """
    assert tunes(carried) == ["toy/steady(lr=0.1, rank=1)", "toy/steady(lr=0.1, rank=2)", "toy/other(beta=1)"]
    problem = the_problem("axes: {mitigations: [[], [toy/scale:1]]}\nexclude: [{mitigations.toy/scale.a: 0.5}]")
    assert (problem.position, problem.code) == ("x.yaml:12:37", "level_never_taken")


def test_a_bare_name_in_a_pattern_means_every_level_of_that_adapter() -> None:
    base = TOY.replace("{use: toy/steady, lr: 1e-3}", "{use: toy/other}")
    grid = """\
        axes: {tune.use: [{use: toy/other, beta: 1}, {use: toy/other, beta: 2}, {use: toy/steady, lr: 0.1}]}
        exclude: [{tune.use: toy/other}]
        """
    assert tunes(grid, base=base) == ["toy/steady(lr=0.1)"]
    exact = grid.replace("tune.use: toy/other}]", "tune.use: {use: toy/other, beta: 2}}]")
    assert tunes(exact, base=base) == ["toy/other(beta=1)", "toy/steady(lr=0.1)"]
    models = "axes: {model: ['toy/model:x', 'toy/model:y']}\nwhen: [{if: {model: toy/model}, axes: {seed: [1, 2]}}]"
    assert len(labels(models)) == 4


def test_equal_adapters_are_one_object() -> None:
    cells = expanded("axes: {seed: [0, 1], tune.epochs: [1, 2], tune.rank: [4, 8], benchmark.n: [5]}").cells
    assert len({id(cell.recipe.tune) for cell in cells}) == 4
    assert len({id(cell.recipe.tune and cell.recipe.tune.use) for cell in cells}) == 2
    assert len({id(cell.recipe.benchmark) for cell in cells}) == 1


# --- `--set`


def test_set_an_adapters_setting() -> None:
    assert levels("tune.lr", "", "tune.lr=0.1") == [0.1]
    assert levels("tune.lr", "", "tune.lr=[0.1, 0.2]") == [0.1, 0.2]
    assert levels("model.path", "", "model.path=other", "model.layers=3") == ["other"]
    assert levels("model.layers", "", "model.path=other", "model.layers=3") == [3]
    assert levels("benchmark.n", "", "recipe.benchmark.n=7") == [7]
    assert levels("generate.dtype", "", "axes.generate.dtype=[bfloat16]") == ["bfloat16"]
    assert [str(use) for use in expanded("", "tune.adapter={use: toy/steady, rank: 2}").cells[0].recipe.judges] == [
        "toy/strict"
    ]


def test_set_a_setting_wherever_the_adapter_is_named() -> None:
    grid = "axes: {mitigations: [[], [{use: toy/scale, a: 0.5}], [toy/scale:1, {use: toy/guarded, guard: toy/strict}]]}"
    assert [
        [str(use) for use in cell.recipe.mitigations] for cell in expanded(grid, "mitigations.toy/scale.a=0.25").cells
    ] == [
        [],
        ["toy/scale:0.25"],
        ["toy/scale:0.25", "toy/guarded(guard=toy/strict)"],
    ]
    listed = "include: [{mitigations: [toy/scale:1]}, {mitigations: []}]\n"
    assert len(labels(listed, "mitigations.toy/scale.a=0.25")) == 2
    deep = grid.replace("toy/strict", "toy/v1.0-beta")
    path = "mitigations.toy/guarded.guard.threshold"
    assert levels(path, deep, f"{path}=0.125") == [None, None, 0.125]
    tuners = "axes: {tune.use: [toy/other, {use: toy/other, rank: 2}, {use: toy/steady, lr: 0.1}]}"
    base = TOY.replace("{use: toy/steady, lr: 1e-3}", "{use: toy/other}")
    assert levels("tune.rank", tuners, "tune.rank=3", base=base) == [3, 3]
    assert tunes(tuners, "tune.rank=3", base=base) == ["toy/other(rank=3)", "toy/steady(lr=0.1, rank=3)"]
    assert tunes(tuners, "tune.lr=0.2", base=base)[-1] == "toy/steady(lr=0.2)"


def test_set_whole_adapters_and_their_settings_in_any_order() -> None:
    sets = "mitigations=[[],[{use: toy/scale, a: 0.5}]]", "mitigations.toy/scale.a=[0,1]"
    for order in (sets, sets[::-1]):
        assert [len(cell.recipe.mitigations) for cell in expanded("", *order).cells] == [0, 1, 1]
    assert labels(SCALES, "mitigations=[]") == ["a=0"]  # an axis for what was taken out is no typo


def test_set_nothing_that_is_not_there() -> None:
    hints = {
        "tune.nope": "there are: tune.use, tune.epochs, tune.steps, tune.max_steps, tune.lr, tune.rank",
        "tune.learning_rate": "did you mean `tune.lr`?",
        "mitigations.toy/scale.a": "name the adapter",
    }
    for path, hint in hints.items():
        (problem,) = problems("", f"{path}=1")
        assert (problem.position, problem.path, problem.code) == ("--set:1:1", path, "unknown_path")
        assert hint in problem.hint
    (problem,) = problems("", "tune.rank=[1, x]")
    assert (problem.position, problem.path) == ("--set:1:15", "axes.tune.rank[1]")
    (problem,) = problems("", "benchmark.n=x")
    assert (problem.position, problem.path) == ("--set:1:13", "recipe.benchmark.n")
