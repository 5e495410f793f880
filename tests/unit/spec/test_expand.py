from __future__ import annotations

from textwrap import dedent

import pytest

from engine.domain.errors import Problem, SpecError
from engine.domain.plan import Counts
from engine.domain.sweep import Axis, Sweep
from engine.spec.expand import Expansion, count, expand
from engine.spec.load import LoadedSweep, read_sweep

BASE = """\
sweep: tiny
recipe:
  model: standin/aligned
  data: {source: file:a, n: 10}
  tune: {lr: 1e-3}
  benchmark: standin/policy
  judges: [standin/rules]
"""


def read(more: str, *overrides: str) -> LoadedSweep:
    return read_sweep((BASE + dedent(more)).encode(), "x.yaml", overrides)


def expanded(more: str, *overrides: str) -> Expansion:
    loaded = read(more, *overrides)
    return expand(loaded.sweep, loaded.positions)


def the_problem(more: str, *overrides: str) -> Problem:
    with pytest.raises(SpecError) as caught:
        expanded(more, *overrides)
    assert len(caught.value.problems) == 1, str(caught.value)
    return caught.value.problems[0]


def labels(expansion: Expansion) -> list[str]:
    return [cell.label for cell in expansion.cells]


def counts(**steps: int) -> Counts:
    zero = dict.fromkeys(("excluded", "included", "extended", "merged", "baselines"), 0)
    return Counts(**({"product": 1, "zipped": 1} | zero | steps))


def test_without_a_grid_the_recipe_is_the_only_cell() -> None:
    expansion = expanded("")
    assert expansion.counts == counts(conditional=1, tuned=1)
    assert expansion.cells[0].coordinates == ()
    assert expansion.cells[0].recipe == read("").sweep.recipe


def test_axes_multiply_and_the_last_varies_fastest() -> None:
    expansion = expanded("axes: {seed: [0, 1], data.n: [10, 5]}")
    assert labels(expansion) == ["seed=0 n=10", "seed=0 n=5", "seed=1 n=10", "seed=1 n=5"]
    assert [cell.recipe.data and cell.recipe.data.n for cell in expansion.cells] == [10, 5, 10, 5]


def test_zips_walk_together_and_multiply_once() -> None:
    expansion = expanded(
        "axes: {seed: [0, 1]}\nzip: [{data.source: [file:a, file:b, file:c], tune.lr: [0.1, 0.2, 0.3]}]"
    )
    assert labels(expansion)[:3] == [
        "seed=0 source=file:a lr=0.1",
        "seed=0 source=file:b lr=0.2",
        "seed=0 source=file:c lr=0.3",
    ]
    assert expansion.counts == counts(product=2, zipped=3, conditional=6, tuned=6)


def test_when_multiplies_only_what_matches_and_overrides_the_recipe() -> None:
    more = """\
        axes: {tune.method: [lora, full], seed: [0, 1]}
        when:
          - {if: {tune.method: full}, axes: {tune.lr: [0.1, 0.2]}}
          - {if: {tune.lr: 0.2, seed: [1]}, axes: {tune.epochs: [7, 8, 9]}}
        """
    expansion = expanded(more)
    assert labels(expansion) == [
        "method=lora seed=0",
        "method=lora seed=1",
        "method=full seed=0 lr=0.1",
        "method=full seed=0 lr=0.2",
        "method=full seed=1 lr=0.1",
        "method=full seed=1 lr=0.2 epochs=7",
        "method=full seed=1 lr=0.2 epochs=8",
        "method=full seed=1 lr=0.2 epochs=9",
    ]
    assert expansion.counts == counts(product=4, conditional=8, tuned=8)


def test_a_condition_may_be_on_the_recipe_itself() -> None:
    assert labels(expanded("when: [{if: {tune.method: lora}, axes: {tune.rank: [4, 8]}}]")) == ["rank=4", "rank=8"]


def test_exclude_drops_what_matches_every_path_of_an_item() -> None:
    more = """\
        axes: {data.source: [file:a, file:b], data.n: [1, 2, 3]}
        exclude: [{data.source: file:b, data.n: [2, 3]}, {data.n: 3}]
        """
    expansion = expanded(more)
    assert labels(expansion) == ["source=file:a n=1", "source=file:a n=2", "source=file:b n=1"]
    assert expansion.counts == counts(product=6, conditional=6, excluded=3, tuned=3)


def test_include_is_that_of_a_github_actions_matrix() -> None:
    # The worked example of the documentation of GitHub Actions, fruit and animal being source and n.
    more = """\
        axes: {data.source: [file:apple, file:pear], data.n: [1, 2]}
        include:
          - {tune.epochs: 3}
          - {tune.epochs: 4, data.n: 1}
          - {data.source: file:apple, tune.rank: 5}
          - {data.source: file:banana}
          - {data.source: file:banana, data.n: 1}
        """
    expansion = expanded(more)
    assert labels(expansion) == [
        "source=file:apple n=1 epochs=4 rank=5",
        "source=file:apple n=2 epochs=3 rank=5",
        "source=file:pear n=1 epochs=4",
        "source=file:pear n=2 epochs=3",
        "source=file:banana",
        "source=file:banana n=1",
    ]
    assert expansion.counts == counts(product=4, conditional=4, included=2, extended=4, tuned=6)


def test_include_alone_lists_the_cells() -> None:
    expansion = expanded("include: [{data.n: 1}, {data.n: 2, seed: 5}]")
    assert labels(expansion) == ["n=1", "n=2 seed=5"]
    assert expansion.counts == counts(product=0, conditional=0, included=2, tuned=2)


def test_include_comes_after_exclude() -> None:
    expansion = expanded("axes: {seed: [0, 1]}\nexclude: [{seed: [0, 1]}]\ninclude: [{seed: 1, data.n: 3}]")
    assert labels(expansion) == ["seed=1 n=3"]
    assert expansion.counts == counts(product=2, conditional=2, excluded=2, included=1, tuned=1)


def test_equal_recipes_are_merged_and_the_first_wins() -> None:
    expansion = expanded("axes: {seed: [0, 1]}\ninclude: [{data.n: 10, seed: 7}, {seed: 7}]")
    assert labels(expansion) == ["seed=0", "seed=1", "seed=7 n=10"]
    assert expansion.counts == counts(product=2, conditional=2, included=2, merged=1, tuned=3)


def test_equal_sections_are_one_object() -> None:
    cells = expanded("axes: {seed: [0, 1], tune.rank: [4, 8], data.n: [1]}").cells
    assert len({id(cell.recipe.tune) for cell in cells}) == 2
    assert len({id(cell.recipe.data) for cell in cells}) == 1


def test_nested_sections_are_varied_like_any_other() -> None:
    base_mix = "recipe.data.mix.source=file:safe", "data.mix.n=1"
    expansion = expanded("", *base_mix, "data.mix.n=[2, 3]")
    assert [cell.recipe.data and cell.recipe.data.mix and cell.recipe.data.mix.n for cell in expansion.cells] == [2, 3]


@pytest.mark.parametrize(
    ("more", "place", "path", "code", "words"),
    [
        (
            "axes: {seed: [0, 1], data.n: [1, 2]}\nexclude: [{seed: [0, 1]}]",
            "9:10",
            "exclude",
            "empty_grid",
            "every combination",
        ),
        (
            "zip: [{seed: [0, 1], data.n: [1, 2]}]\nexclude: [{seed: 0, data.n: 1}, {seed: 0, data.n: 2}]",
            "9:33",
            "exclude[1]",
            "never_matches",
            "never together",
        ),
        (
            "zip: [{seed: [0, 1], data.n: [1, 2]}]\nwhen: [{if: {seed: 0, data.n: 2}, axes: {tune.rank: [1]}}]",
            "9:8",
            "when[0]",
            "never_matches",
            "never together",
        ),
        (
            "when: [{if: {seed: 0}, axes: {data.n: [1]}}, {if: {data.n: 1}, axes: {data.n: [2]}}]",
            "8:79",
            "when[1].axes.data.n",
            "swept_twice",
            "exclude each other",
        ),
        (
            "axes: {generate.temperature: [0.7, 0], seed: [0, 1]}\nzip: [{generate.samples: [5, 1]}]",
            "9:27",
            "zip[0].generate.samples[0]",
            "inconsistent",
            "with generate.temperature=0 generate.samples=5: samples > 1",
        ),
        (
            "axes: {seed: [0, 1, 2], data.n: [1, 2]}\nrun: {max_cells: 5}",
            "8:7",
            "axes",
            "too_many_cells",
            "6 combinations before `exclude`, and `run.max_cells` is 5",
        ),
        (
            "when: [{if: {seed: 0}, axes: {data.n: [1, 2], tune.rank: [1, 2, 3]}}]\nrun: {max_cells: 5}",
            "8:7",
            "when",
            "too_many_cells",
            "at least 6 combinations",
        ),
    ],
)
def test_what_only_the_whole_grid_can_tell(more: str, place: str, path: str, code: str, words: str) -> None:
    problem = the_problem(more)
    assert (problem.path, problem.code) == (path, code)
    assert words in f"{problem.what} {problem.hint}"
    assert problem.position == f"x.yaml:{place}"


def test_an_override_may_leave_an_exclude_with_nothing_to_do() -> None:
    grid = "zip: [{seed: [0, 1], data.n: [1, 2]}]\nexclude: [{seed: 0, data.n: 1}]\n"
    assert labels(expanded(grid, "data.n=2")) == ["seed=0", "seed=1"]
    assert labels(expanded(grid, "data.n=[2]")) == ["n=2 seed=0", "n=2 seed=1"]
    when = "axes: {seed: [0, 1]}\nwhen: [{if: {seed: 1}, axes: {data.n: [1, 2]}}]\n"
    assert labels(expanded(when, "seed=0")) == [""]


def test_a_trillion_combinations_are_refused_at_once() -> None:
    levels = tuple(range(1, 1001))
    paths = ("seed", "data.n", "tune.rank", "tune.max_length")
    sweep = Sweep(sweep="huge", recipe=read("").sweep.recipe, axes=tuple(Axis(path=p, levels=levels) for p in paths))
    assert count(sweep) == 10**12
    with pytest.raises(SpecError, match="1,000,000,000,000 combinations"):
        expand(sweep)
    when = "when: [{if: {seed: 0}, axes: {data.n: %s, tune.rank: %s, tune.max_steps: %s, tune.epochs: %s}}]"
    assert the_problem(when % ((str(list(range(1, 1001))),) * 4)).code == "too_many_cells"


def test_ten_thousand_cells_are_counted() -> None:
    more = f"""\
        axes:
          data.source: [file:a, file:b, file:c, file:d, file:e]
          tune.epochs: [1, 3, 5, 10]
          tune.lr: [1e-4, 3e-4, 1e-3, 3e-3, 1e-2]
          seed: {list(range(100))}
        exclude: [{{data.source: file:a, tune.epochs: 10}}]
        include: [{{data.source: file:b, tune.rank: 4}}]
        run: {{max_cells: 10000}}
        """
    loaded = read(more)
    expansion = expand(loaded.sweep, loaded.positions)
    assert expansion.counts == counts(product=10_000, conditional=10_000, excluded=500, extended=2_000, tuned=9_500)
