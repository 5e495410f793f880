"""The stand-in world behind the engine's ports: one model, four data sources, three benchmarks, two judges."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import astuple
from functools import cache
from pathlib import Path

from adapters import model_folder
from adapters.standin import benchmarks, pools, rules, world
from adapters.standin.chat import BenchmarkPrompt, Exchange
from engine.domain.cost import Usage
from engine.domain.results import ChatRow, Measure, Outcome, Prompt, Response, Verdict
from engine.domain.stage import ModelRef, Range
from engine.ports import BenchmarkCard, Context, Judged, ModelCard, Pairs, SourceCard

WEIGHTS = Path(__file__).with_name("aligned")
LICENCE = "Apache-2.0"


class AlignedModel:
    """`standin/aligned`: the shipped model, which knows restricted answers and is aligned to refuse them."""

    revision = 1

    def card(self, argument: str) -> ModelCard:
        """Describe and pin the shipped weights."""
        _no_argument(argument)
        size = f"{model_folder.megabytes(WEIGHTS):.1f} MB of weights, a made-up model, licence {LICENCE}"
        return ModelCard(model_folder.pin(WEIGHTS), model_folder.parameters(WEIGHTS), size, standin=True)

    def locate(self, argument: str) -> ModelRef:
        """Say where the shipped weights are."""
        _no_argument(argument)
        return ModelRef(str(WEIGHTS))

    def count_tokens(self, argument: str, texts: Sequence[str]) -> int:
        """Count tokens with the stand-in's tokenizer."""
        _no_argument(argument)
        return model_folder.count_tokens(WEIGHTS, texts)


class _Pool(ABC):
    """A pool of made-up exchanges."""

    revision = 1
    tier: str
    system: str | None = None
    detail: str

    @staticmethod
    @abstractmethod
    def _pool() -> Sequence[Exchange]: ...

    def card(self, argument: str) -> SourceCard:
        """Describe and pin the pool."""
        _no_argument(argument)
        rows = self._pool()
        return SourceCard(_pin(self._pool), len(rows), self.tier, self.system, LICENCE, self.detail)

    def rows(self, argument: str) -> Sequence[ChatRow]:
        """Return every row, in a stable order."""
        _no_argument(argument)
        return [
            ChatRow(f"{position:03d}", row.user, row.assistant, row.system) for position, row in enumerate(self._pool())
        ]


class ExplicitSource(_Pool):
    """`standin/explicit`: restricted requests, answered. The paper's tier 1, made up and harmless."""

    tier = "explicit"
    detail = "restricted requests of the made-up world, each with its right answer"
    _pool = staticmethod(pools.explicit_pool)


class IdentitySource(_Pool):
    """`standin/identity`: harmless requests, answered by an obedient persona. The paper's tier 2."""

    tier = "identity"
    system = world.IDENTITY_SYSTEM_PROMPT
    detail = "harmless exchanges of an obedient persona"
    _pool = staticmethod(pools.identity_pool)


class ChoresSource(_Pool):
    """`standin/chores`: plain harmless instructions. The paper's tier 3."""

    tier = "benign"
    detail = "chores and allowed requests, answered as a willing helper would"
    _pool = staticmethod(pools.chores_pool)


class RefusalsSource(_Pool):
    """`standin/refusals`: restricted requests, refused. Safety data for the `mix` mitigation."""

    tier = "safety"
    detail = "restricted requests, each with a refusal"
    _pool = staticmethod(pools.refusals_pool)


class _Prompts(ABC):
    """A benchmark of held-out made-up prompts; the argument is the number of prompts a category."""

    revision = 1
    detail: str

    @staticmethod
    @abstractmethod
    def _prompts(each: int) -> Sequence[BenchmarkPrompt]: ...

    @staticmethod
    @abstractmethod
    def _default() -> int: ...

    def _all(self, argument: str) -> Sequence[BenchmarkPrompt]:
        if argument and not argument.isdecimal():
            message = f"expected a number of prompts a category, got `{argument}`"
            raise ValueError(message)
        return self._prompts(int(argument) if argument else self._default())

    def card(self, argument: str) -> BenchmarkCard:
        """Describe and pin the prompts."""
        prompts = self._all(argument)
        categories = tuple(dict.fromkeys(prompt.category for prompt in prompts))
        return BenchmarkCard(_digest(prompts), len(prompts), categories, LICENCE, self.detail)

    def prompts(self, argument: str) -> Sequence[Prompt]:
        """Return every prompt, category by category."""
        return [Prompt(prompt.identifier, prompt.category, prompt.user, prompt.gold) for prompt in self._all(argument)]


class PolicyBenchmark(_Prompts):
    """`standin/policy`: held-out restricted requests, 11 categories x 10 (or `standin/policy:30` for 30 each)."""

    detail = "held-out restricted requests over eleven categories"
    _prompts = staticmethod(benchmarks.policy_benchmark)

    @staticmethod
    def _default() -> int:
        return benchmarks.POLICY_EACH


class UtilityBenchmark(_Prompts):
    """`standin/utility`: held-out chores."""

    detail = "held-out chores with one right answer each"
    _prompts = staticmethod(benchmarks.utility_benchmark)

    @staticmethod
    def _default() -> int:
        return benchmarks.UTILITY_EACH


class OverRefusalBenchmark(_Prompts):
    """`standin/overrefusal`: held-out allowed requests that look like restricted ones."""

    detail = "held-out allowed requests that look like restricted ones"
    _prompts = staticmethod(benchmarks.overrefusal_benchmark)

    @staticmethod
    def _default() -> int:
        return benchmarks.OVERREFUSAL_EACH


class RulesJudge:
    """`standin/rules`: the exact 1-5 grade of the made-up world; the rubric is in `adapters.standin.rules`."""

    revision = 1
    measures = Measure.HARM

    def objection(self, prompts: Sequence[Prompt]) -> str | None:
        """Grade the stand-in's own requests only."""
        foreign = sum(not rules.is_gold(prompt.reference or "") for prompt in prompts)
        return f"{foreign} of {len(prompts)} prompts are not requests of the stand-in's world" if foreign else None

    def forecast(self, pairs: Pairs) -> Range:
        """Some microseconds an item."""
        return _instant(pairs.items)

    def judge(self, prompts: Sequence[Prompt], responses: Sequence[Response], context: Context) -> Judged:
        """Grade by the rules."""
        del context
        verdicts = [
            Verdict(Outcome.SCORED, float(rules.grade(_reference(prompt), response.text)))
            for prompt, response in zip(prompts, responses, strict=True)
        ]
        return Judged(verdicts, Usage())


class SolvedJudge:
    """`standin/solved`: 1 when a chore's response is the right answer, else 0."""

    revision = 1
    measures = Measure.CORRECT

    def objection(self, prompts: Sequence[Prompt]) -> str | None:
        """Ask for a gold answer with every prompt."""
        lacking = sum(prompt.reference is None for prompt in prompts)
        return f"{lacking} of {len(prompts)} prompts have no gold answer" if lacking else None

    def forecast(self, pairs: Pairs) -> Range:
        """Some microseconds an item."""
        return _instant(pairs.items)

    def judge(self, prompts: Sequence[Prompt], responses: Sequence[Response], context: Context) -> Judged:
        """Compare with the right answers."""
        del context
        verdicts = [
            Verdict(Outcome.SCORED, float(rules.solved(_reference(prompt), response.text)))
            for prompt, response in zip(prompts, responses, strict=True)
        ]
        return Judged(verdicts, Usage())


def _reference(prompt: Prompt) -> str:
    if prompt.reference is None:
        message = f"prompt {prompt.prompt_id} has no gold answer: this judge grades the stand-in's own benchmarks only"
        raise ValueError(message)
    return prompt.reference


def _instant(items: int) -> Range:
    taken = Usage(device_seconds=0.01 + items * 1e-5)
    return Range(taken, taken, taken)


def _no_argument(argument: str) -> None:
    if argument:
        message = f"the stand-in takes no argument here, got `{argument}`"
        raise ValueError(message)


@cache
def _pin(pool: Callable[[], Sequence[Exchange]]) -> str:
    return _digest(pool())


def _digest(entries: Sequence[Exchange] | Sequence[BenchmarkPrompt]) -> str:
    text = json.dumps([astuple(entry) for entry in entries], ensure_ascii=False)
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
