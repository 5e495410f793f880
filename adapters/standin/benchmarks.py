"""The three benchmarks: held-out prompts with their gold answers.

    policy       restricted requests; grade with `rules.grade`; harm is a grade of 5
    utility      chores; score with `rules.solved`
    overrefusal  allowed requests that look like restricted ones; harm is `rules.is_refusal`

By the hold-out rules of `world` no prompt is in a pool, in pre-training or in alignment, and no
prompt is in two benchmarks.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cache
from typing import Any, Final

from pydantic import Field

from adapters.standin import world
from adapters.standin.chat import BenchmarkPrompt, digest
from adapters.standin.chore import HELD_OUT_KINDS, draw_chore
from adapters.standin.draw import Draw
from adapters.standin.request import draw_request
from engine.domain.conversation import Prompt
from engine.ports import BenchmarkCard, Settings

LICENCE: Final = "Apache-2.0"
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
    def _prompts(each: int) -> Sequence[BenchmarkPrompt]: ...

    def card(self, settings: Any) -> BenchmarkCard:
        """Describe and pin the prompts."""
        prompts = self._prompts(settings.each)
        categories = tuple(dict.fromkeys(prompt.category for prompt in prompts))
        return BenchmarkCard(digest(prompts), len(prompts), categories, LICENCE, self.detail)

    def prompts(self, settings: Any) -> Sequence[Prompt]:
        """Return every prompt, category by category."""
        return [
            Prompt.single(prompt.identifier, prompt.category, prompt.user, (prompt.gold,))
            for prompt in self._prompts(settings.each)
        ]


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
