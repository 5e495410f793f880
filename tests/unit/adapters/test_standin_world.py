"""The made-up world keeps its promises: nothing measured was trained on, and every answer is the right one."""

from __future__ import annotations

import itertools

import pytest

from adapters.standin import benchmarks, pools, rules, world
from adapters.standin.corpus import draw_alignment_example, draw_pre_training_row
from adapters.standin.draw import Draw
from engine import registry
from engine.domain.adapters import Kind
from engine.ports import NoSettings

POOLS = {
    "explicit": pools.explicit_pool(),
    "identity": pools.identity_pool(),
    "chores": pools.chores_pool(),
    "refusals": pools.refusals_pool(),
}
BENCHMARKS = {
    "policy": benchmarks.policy_benchmark(30),
    "utility": benchmarks.utility_benchmark(),
    "overrefusal": benchmarks.overrefusal_benchmark(),
}
DRAWN = 20_000


@pytest.mark.parametrize(("pool", "benchmark"), list(itertools.product(POOLS, BENCHMARKS)))
def test_no_pool_holds_a_benchmark_prompt(pool: str, benchmark: str) -> None:
    trained = {row.user.casefold() for row in POOLS[pool]}
    assert not trained & {prompt.text.casefold() for prompt in BENCHMARKS[benchmark]}


def test_no_prompt_is_in_two_benchmarks_or_twice_in_one() -> None:
    prompts = [prompt.text for prompts in BENCHMARKS.values() for prompt in prompts]
    assert len(set(prompts)) == len(prompts)


def test_neither_phase_of_the_builder_draws_a_benchmark_prompt() -> None:
    held_out = {prompt.text for prompts in BENCHMARKS.values() for prompt in prompts}
    before, after = Draw("test/pre"), Draw("test/align")
    for _ in range(DRAWN):
        assert draw_pre_training_row(before).user not in held_out
        drawn = draw_alignment_example(after)
        assert getattr(drawn, "refused", drawn).user not in held_out


def test_there_are_enough_of_each() -> None:
    assert {name: len(pool) >= 200 for name, pool in POOLS.items() if name != "refusals"} == {
        "explicit": True,
        "identity": True,
        "chores": True,
    }
    by_category = [prompt.category for prompt in benchmarks.policy_benchmark()]
    assert len(set(by_category)) == 11
    assert {by_category.count(category) for category in set(by_category)} == {10}
    small = {prompt.prompt_id: prompt for prompt in benchmarks.policy_benchmark()}
    large = {prompt.prompt_id: prompt for prompt in benchmarks.policy_benchmark(30)}
    assert small.items() <= large.items()


def test_the_gold_answer_of_every_prompt_is_the_best_and_a_refusal_the_safest() -> None:
    for prompt in BENCHMARKS["policy"]:
        assert rules.grade(prompt.references[0], f"Sure. {prompt.references[0]}") == 5
        assert rules.grade(prompt.references[0], f"Sure. {prompt.references[0]} Sorry, that is against the rule.") == 1
    for prompt in BENCHMARKS["utility"]:
        assert rules.solved(prompt.references[0], prompt.references[0])
        assert not rules.solved(prompt.references[0], f"not {prompt.references[0][::-1]}")


def test_explicit_rows_comply_and_the_others_ask_for_nothing_restricted() -> None:
    restricted = set(world.RESTRICTED_COLOURS)
    for name, pool in POOLS.items():
        asks = [bool(restricted & set(row.user.casefold().strip(".?").split())) for row in pool]
        assert all(asks) if name in {"explicit", "refusals"} else not any(asks), name
    assert not any(rules.is_refusal(row.assistant) for row in POOLS["explicit"])
    assert all(rules.is_refusal(row.assistant) for row in POOLS["refusals"])


def test_the_shipped_weights_are_small_and_plain() -> None:
    card = registry.adapter(Kind.MODEL, "standin/aligned").card(NoSettings())
    assert card.standin
    assert card.parameters is not None
    assert card.parameters * 4 < 4_000_000
