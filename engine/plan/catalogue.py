"""What the installed adapters say of themselves, asked once: cards, pins and revisions."""

from __future__ import annotations

from functools import cache

from engine import registry
from engine.domain.results import Measure, Prompt
from engine.domain.sweep import TuneRecipe
from engine.plan.accounts import asking
from engine.ports import BenchmarkCard, ModelCard, SourceCard
from engine.registry import Kind, split_ref


class Catalogue:
    """Cards by reference, each fetched once per catalogue, so that one plan sees one state of the world."""

    def __init__(self) -> None:
        """Start with nothing fetched."""
        self.model = cache(self._model)
        self.source = cache(self._source)
        self.benchmark = cache(self._benchmark)
        self.prompts = cache(self._prompts)
        self.objection = cache(self._objection)
        self.revision = cache(registry.revision)
        self.judging = cache(self._judging)
        self.mean_row_tokens = cache(self._mean_row_tokens)
        self.prompt_tokens = cache(self._prompt_tokens)

    def _model(self, ref: str) -> ModelCard:
        return registry.adapter(Kind.MODEL, ref).card(split_ref(ref)[1])

    def _source(self, ref: str) -> SourceCard:
        return registry.adapter(Kind.DATA, ref).card(split_ref(ref)[1])

    def _benchmark(self, ref: str) -> BenchmarkCard:
        return registry.adapter(Kind.BENCHMARK, ref).card(split_ref(ref)[1])

    def _prompts(self, ref: str) -> tuple[Prompt, ...]:
        return tuple(registry.adapter(Kind.BENCHMARK, ref).prompts(split_ref(ref)[1]))

    def _objection(self, judge: str, benchmark: str) -> str | None:
        return registry.adapter(Kind.JUDGE, judge).objection(self.prompts(benchmark))

    @staticmethod
    def _judging(judge: str) -> dict[str, str]:
        """What a judge that asks a model asks with; nothing for others."""
        found = asking(judge)
        return {} if found is None else {"asks": found.pin}

    @staticmethod
    def tuning_objection(settings: TuneRecipe) -> str | None:
        """Return why a fine-tuner cannot tune so, or None."""
        return registry.adapter(Kind.TUNER, settings.adapter).objection(settings)

    @staticmethod
    def measures(judge: str) -> Measure:
        """Return what a judge measures."""
        return registry.adapter(Kind.JUDGE, judge).measures

    @staticmethod
    def names(kind: Kind) -> tuple[str, ...]:
        """Return the installed adapters' names of one kind, sorted."""
        return registry.names(kind)

    def _mean_row_tokens(self, model: str, source: str) -> float:
        """Mean tokens of a training row of `source`, counted with the tokenizer of `model`; template left out."""
        rows = registry.adapter(Kind.DATA, source).rows(split_ref(source)[1])
        texts = [text for row in rows for text in (row.system, row.user, row.assistant) if text]
        return self._count(model, texts) / max(1, len(rows))

    def _prompt_tokens(self, model: str, benchmark: str, system: str | None) -> int:
        """Tokens of all prompts of `benchmark` with the system prompt in front of each; template left out."""
        prompts = self.prompts(benchmark)
        repeated = [system] * len(prompts) if system else []
        return self._count(model, [prompt.text for prompt in prompts] + repeated)

    @staticmethod
    def _count(model: str, texts: list[str]) -> int:
        return registry.adapter(Kind.MODEL, model).count_tokens(split_ref(model)[1], texts)
