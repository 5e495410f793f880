"""Samples and parts of benchmarks: nested, seeded, and with categories in the proportions of the whole."""

from __future__ import annotations

import random
from collections import Counter

from hypothesis import example, given, settings
from hypothesis import strategies as st

from adapters.benchmarks import drawn as benchmark
from engine.domain.conversation import ChatRow, Prompt
from engine.domain.sampling import Draw, drawn, in_proportion

CATEGORIES = st.lists(st.sampled_from("abcdefghijkl"), min_size=1, max_size=120)
SKEWED = st.lists(st.integers(1, 40), min_size=1, max_size=8).map(
    lambda sizes: [str(name) for name, size in enumerate(sizes) for _ in range(size)]
)
SEEDS = st.integers(0, 2**31 - 1)


def rows(categories: list[str]) -> list[ChatRow]:
    return [ChatRow(str(at), (), category=category) for at, category in enumerate(categories)]


def is_in_proportion(taken: list[str], whole: list[str]) -> bool:
    """Tell whether every category of the whole has its exact share of what was taken, within one."""
    found, sizes = Counter(taken), Counter(whole)
    return all(abs(found[name] * len(whole) - size * len(taken)) < len(whole) for name, size in sizes.items())


@settings(deadline=None, max_examples=60)
@given(CATEGORIES | SKEWED)
@example(["big"] * 100 + [str(number) for number in range(10)])
def test_every_beginning_has_each_categorys_share_within_one(categories: list[str]) -> None:
    order = in_proportion(categories)
    assert sorted(order) == list(range(len(categories)))
    sizes, taken = Counter(categories), Counter[str]()
    for n, at in enumerate(order, 1):
        taken[categories[at]] += 1
        # Of d in N, the exact share of n is dn / N.
        assert all(abs(taken[name] * len(order) - size * n) < len(order) for name, size in sizes.items())
    for name in sizes:
        places = [at for at in order if categories[at] == name]
        assert places == sorted(places), "items of one category keep their order"


@settings(deadline=None, max_examples=60)
@given(categories=CATEGORIES | SKEWED, seed=SEEDS, is_stratified=st.booleans(), data=st.data())
def test_a_sample_is_nested_and_made_by_its_seed_alone(
    categories: list[str], seed: int, *, is_stratified: bool, data: st.DataObject
) -> None:
    source = rows(categories)
    whole = drawn(source, Draw(len(source), seed, is_stratified))
    n = data.draw(st.integers(1, len(source)))
    assert drawn(source, Draw(n, seed, is_stratified)) == whole[:n]
    assert sorted(row.row_id for row in whole) == sorted(row.row_id for row in source)
    if is_stratified:
        assert is_in_proportion([row.category for row in whole[:n]], categories)
    else:
        ids = [row.row_id for row in source]
        assert [row.row_id for row in whole[:n]] == random.Random(seed).sample(ids, len(ids))[:n]  # noqa: S311 - as ever


def test_another_seed_draws_other_rows_of_each_category() -> None:
    source = rows(["a"] * 60 + ["b"] * 40)
    taken = {seed: {row.row_id for row in drawn(source, Draw(10, seed, is_stratified=True))} for seed in range(20)}
    assert all(sum(int(name) < 60 for name in ids) == 6 for ids in taken.values())
    assert len({frozenset(ids) for ids in taken.values()}) == 20


@settings(deadline=None, max_examples=60)
@given(CATEGORIES | SKEWED, st.data())
def test_a_part_of_a_benchmark_is_within_the_larger_one(categories: list[str], data: st.DataObject) -> None:
    prompts = [Prompt.single(f"p{at}", category, "Which?") for at, category in enumerate(categories)]
    n = data.draw(st.integers(1, len(prompts)))
    part, larger = benchmark.drawn(prompts, n), benchmark.drawn(prompts, min(n + 1, len(prompts)))
    chosen = {prompt.prompt_id for prompt in part}
    assert chosen <= {prompt.prompt_id for prompt in larger}
    assert is_in_proportion([prompt.category for prompt in part], categories)
    assert list(part) == [prompt for prompt in prompts if prompt.prompt_id in chosen], "in the order of the benchmark"
