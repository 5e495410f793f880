"""The three benchmarks: held-out prompts with their gold answers.

    policy       restricted requests; grade with `rules.grade`; harm is a grade of 5
    utility      chores; score with `rules.solved`
    overrefusal  allowed requests that look like restricted ones; harm is `rules.is_refusal`

By the hold-out rules of `world` no prompt is in a pool, in pre-training or in alignment, and no
prompt is in two benchmarks.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from functools import cache, partial
from typing import Any, Final

from pydantic import Field

from adapters.standin import world
from adapters.standin.chat import pin
from adapters.standin.chore import HELD_OUT_KINDS, Chore, draw_chore
from adapters.standin.draw import Draw
from adapters.standin.request import Request, draw_request
from engine.domain.conversation import Prompt
from engine.ports import BenchmarkCard, Settings

LICENCE: Final = "Apache-2.0"
POLICY_EACH: Final = 10
OVERREFUSAL_EACH: Final = 4
UTILITY_EACH: Final = 6


@cache
def policy_benchmark(each: int = POLICY_EACH) -> tuple[Prompt, ...]:
    """Return held-out restricted requests: `each` (1 to 100) for each of the eleven categories.

    A smaller benchmark is contained in a larger one, under the same identifiers.
    """
    return _drawn("policy", world.CATEGORIES, each, partial(_held_out, world.RESTRICTED_COLOURS))


@cache
def overrefusal_benchmark(each: int = OVERREFUSAL_EACH) -> tuple[Prompt, ...]:
    """Return held-out allowed requests: `each` (1 to 100) for each of the eleven categories.

    They have the phrasings, things and people of the policy benchmark, in allowed colours.
    """
    return _drawn("overrefusal", world.CATEGORIES, each, partial(_held_out, world.ALLOWED_COLOURS))


@cache
def utility_benchmark(each: int = UTILITY_EACH) -> tuple[Prompt, ...]:
    """Return held-out chores: `each` (1 to 12) for each of the eight kinds with a hold-out."""
    return _drawn("utility", HELD_OUT_KINDS, each, partial(draw_chore, held_out=True))


def _held_out(colours: tuple[str, ...], draw: Draw, category: str) -> Request:
    return draw_request(draw, category, colours, world.RESERVED_PEOPLE, held_out=True)


def _drawn(
    name: str, categories: Iterable[str], each: int, draw_one: Callable[[Draw, str], Request | Chore]
) -> tuple[Prompt, ...]:
    """Return `each` different prompts of every category; identifiers are such as `policy/vaults/03`."""
    found: list[Prompt] = []
    for category in categories:
        draw, seen = Draw(f"benchmark/{name}/{category}"), set[str]()
        while len(seen) < each:
            one = draw_one(draw, category)
            if one.prompt not in seen:
                found.append(Prompt.single(f"{name}/{category}/{len(seen):02d}", category, one.prompt, (one.gold,)))
                seen.add(one.prompt)
    return tuple(found)


class PolicySettings(Settings):
    """How large `standin/policy` is."""

    argument = "each"

    each: int = Field(default=POLICY_EACH, ge=1, le=100, strict=False, description="Prompts per category.")


class UtilitySettings(Settings):
    """How large `standin/utility` is."""

    argument = "each"

    each: int = Field(default=UTILITY_EACH, ge=1, le=12, strict=False, description="Prompts per kind of chore.")


class OverRefusalSettings(Settings):
    """How large `standin/overrefusal` is."""

    argument = "each"

    each: int = Field(default=OVERREFUSAL_EACH, ge=1, le=100, strict=False, description="Prompts per category.")


class _Benchmark(ABC):
    """Held-out made-up prompts behind the engine's port."""

    revision = 1
    detail: str

    @staticmethod
    @abstractmethod
    def _prompts(each: int) -> Sequence[Prompt]: ...

    def card(self, settings: Any) -> BenchmarkCard:
        """Describe and pin the prompts."""
        prompts = self._prompts(settings.each)
        categories = tuple(dict.fromkeys(prompt.category for prompt in prompts))
        pinned = pin((prompt.prompt_id, prompt.category, prompt.text, prompt.reference) for prompt in prompts)
        return BenchmarkCard(pinned, len(prompts), categories, LICENCE, self.detail)

    def prompts(self, settings: Any) -> Sequence[Prompt]:
        """Return every prompt, category by category."""
        return self._prompts(settings.each)


class PolicyBenchmark(_Benchmark):
    """`standin/policy`: held-out restricted requests, 11 categories x 10 (or `standin/policy:30` for 30 each)."""

    Settings = PolicySettings
    detail = "held-out restricted requests over eleven categories"
    _prompts = staticmethod(policy_benchmark)


class UtilityBenchmark(_Benchmark):
    """`standin/utility`: held-out chores."""

    Settings = UtilitySettings
    detail = "held-out chores with one right answer each"
    _prompts = staticmethod(utility_benchmark)


class OverRefusalBenchmark(_Benchmark):
    """`standin/overrefusal`: held-out allowed requests that look like restricted ones."""

    Settings = OverRefusalSettings
    detail = "held-out allowed requests that look like restricted ones"
    _prompts = staticmethod(overrefusal_benchmark)
