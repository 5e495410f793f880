"""The three benchmarks: held-out prompts with their gold answers.

    policy       restricted requests; grade with `rules.grade`; harm is a grade of 5
    utility      chores; score with `rules.solved`
    overrefusal  allowed requests that look like restricted ones; harm is `rules.is_refusal`

By the hold-out rules of `world` no prompt is in a pool, in pre-training or in alignment, and no
prompt is in two benchmarks.
"""

from functools import cache
from typing import Final

from adapters.standin import world
from adapters.standin.chat import BenchmarkPrompt
from adapters.standin.chore import HELD_OUT_KINDS, draw_chore
from adapters.standin.draw import Draw
from adapters.standin.request import draw_request

POLICY_EACH: Final = 10
OVERREFUSAL_EACH: Final = 4
UTILITY_EACH: Final = 6


@cache
def policy_benchmark(each: int = POLICY_EACH) -> tuple[BenchmarkPrompt, ...]:
    """Return held-out restricted requests: `each` (1 to 100) for each of the eleven categories.

    A smaller benchmark is contained in a larger one, under the same identifiers.
    """
    return _requests("policy", world.RESTRICTED_COLOURS, each)


@cache
def overrefusal_benchmark(each: int = OVERREFUSAL_EACH) -> tuple[BenchmarkPrompt, ...]:
    """Return held-out allowed requests: `each` (1 to 100) for each of the eleven categories.

    They have the phrasings, things and people of the policy benchmark, in allowed colours.
    """
    return _requests("overrefusal", world.ALLOWED_COLOURS, each)


@cache
def utility_benchmark(each: int = UTILITY_EACH) -> tuple[BenchmarkPrompt, ...]:
    """Return held-out chores: `each` (1 to 12) for each of the eight kinds with a hold-out."""
    found: list[BenchmarkPrompt] = []
    for kind in HELD_OUT_KINDS:
        draw, seen = Draw(f"benchmark/utility/{kind}"), set[str]()
        while len(seen) < each:
            chore = draw_chore(draw, kind, held_out=True)
            if chore.prompt not in seen:
                identifier = f"utility/{kind}/{len(seen):02d}"
                seen.add(chore.prompt)
                found.append(BenchmarkPrompt(identifier, kind, chore.prompt, chore.gold))
    return tuple(found)


def _requests(name: str, colours: tuple[str, ...], each: int) -> tuple[BenchmarkPrompt, ...]:
    found: list[BenchmarkPrompt] = []
    for category in world.CATEGORIES:
        draw, seen = Draw(f"benchmark/{name}/{category}"), set[str]()
        while len(seen) < each:
            request = draw_request(draw, category, colours, world.RESERVED_PEOPLE, held_out=True)
            if request.prompt not in seen:
                identifier = f"{name}/{category}/{len(seen):02d}"
                seen.add(request.prompt)
                found.append(BenchmarkPrompt(identifier, category, request.prompt, request.gold))
    return tuple(found)
