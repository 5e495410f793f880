"""What the installed adapters say of themselves, asked once: cards, pins and revisions."""

from __future__ import annotations

from functools import cache

from engine import registry
from engine.domain.adapters import Kind, Use
from engine.domain.conversation import Prompt
from engine.domain.results import Measure
from engine.domain.stage import ModelRef
from engine.domain.sweep import Decoding, Length
from engine.ports import BenchmarkCard, ModelCard, Needs, SourceCard


class Catalogue:
    """Cards by use, each fetched once per catalogue, so that one plan sees one state of the world."""

    def __init__(self) -> None:
        """Start with nothing fetched."""
        self.model = cache(self._model)
        self.located = cache(self._located)
        self.source = cache(self._source)
        self.benchmark = cache(self._benchmark)
        self.prompts = cache(self._prompts)
        self.needs = cache(self._needs)
        self.objection = cache(self._objection)
        self.revision = cache(registry.revision)
        self.mean_row_tokens = cache(self._mean_row_tokens)
        self.prompt_tokens = cache(self._prompt_tokens)

    def _model(self, use: Use) -> ModelCard:
        return registry.adapter(Kind.MODEL, use.name).card(use.settings)

    def _located(self, use: Use) -> ModelRef:
        return registry.adapter(Kind.MODEL, use.name).locate(use.settings)

    def _source(self, use: Use) -> SourceCard:
        return registry.adapter(Kind.DATA, use.name).card(use.settings)

    def _benchmark(self, use: Use) -> BenchmarkCard:
        return registry.adapter(Kind.BENCHMARK, use.name).card(use.settings)

    def _prompts(self, use: Use) -> tuple[Prompt, ...]:
        prompts = tuple(registry.adapter(Kind.BENCHMARK, use.name).prompts(use.settings))
        if len(prompts) != (said := self.benchmark(use).prompts):
            raise ValueError(f"its card says {said:,} prompts, and it has {len(prompts):,}")
        return prompts

    def _needs(self, judge: Use) -> Needs:
        return registry.adapter(Kind.JUDGE, judge.name).needs(judge.settings)

    def _objection(self, judge: Use, benchmark: Use) -> str | None:
        return registry.adapter(Kind.JUDGE, judge.name).objection(judge.settings, self.prompts(benchmark))

    def tuning_objection(self, tuner: Use, length: Length, model: Use) -> str | None:
        """Return why a fine-tuner cannot tune a model so, or None."""
        return registry.adapter(Kind.TUNER, tuner.name).objection(tuner.settings, length, self.located(model))

    def generating_notes(self, generator: Use, decoding: Decoding, model: Use) -> tuple[str, ...]:
        """Return what a generator says of how it will ask a model.

        Raises:
            ValueError: It cannot ask it so.
        """
        adapter = registry.adapter(Kind.GENERATOR, generator.name)
        return tuple(adapter.notes(generator.settings, decoding, self.located(model)))

    @staticmethod
    def measures(judge: Use) -> Measure:
        """Return what a judge measures."""
        return registry.adapter(Kind.JUDGE, judge.name).measures

    def _mean_row_tokens(self, model: Use, source: Use) -> float:
        """Mean tokens of a training row of `source`, counted with the tokenizer of `model`; template left out."""
        rows = registry.adapter(Kind.DATA, source.name).rows(source.settings)
        texts = [turn.text for row in rows for turn in row.turns if turn.text]
        return self._count(model, texts) / max(1, len(rows))

    def _prompt_tokens(self, model: Use, benchmark: Use, system: str | None) -> int:
        """Tokens of all prompts of `benchmark` with the system prompt in front of each; template left out."""
        prompts = self.prompts(benchmark)
        repeated = [system] * len(prompts) if system else []
        return self._count(model, [turn.text for prompt in prompts for turn in prompt.turns] + repeated)

    @staticmethod
    def _count(model: Use, texts: list[str]) -> int:
        return registry.adapter(Kind.MODEL, model.name).count_tokens(model.settings, texts)
