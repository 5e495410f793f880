"""What the installed adapters say of themselves, asked once: cards, pins and revisions."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from typing import TypeVar

from engine import registry
from engine.domain.adapters import Kind, Use
from engine.domain.conversation import ChatRow, Prompt
from engine.domain.data import DataRecipe
from engine.domain.errors import PlanError
from engine.domain.results import Measure
from engine.domain.sampling import Draw, drawn
from engine.domain.stage import ModelRef
from engine.domain.sweep import Decoding, GenerateRecipe, Length, Recipe
from engine.ports import (
    BenchmarkCard,
    GeneratorWithNotes,
    GeneratorWithPrompts,
    ModelCard,
    Needs,
    SourceCard,
    TunerWithNotes,
    TunerWithRemarks,
    TunerWithRows,
)

T = TypeVar("T")

SAMPLED = 1000
"""Most items of a source that are tokenized for a forecast, evenly spread over it."""

LOOKED_AT = 200
"""Most rows of a sample that are looked at before they are trained on, evenly spread over it."""

LONGEST = 20
"""Beside them, so many with the most characters, so that the longest is among them."""


@dataclass(frozen=True, slots=True)
class Lengths:
    """Tokens of rows or prompts, chat template and all.

    Attributes:
        sample: Those of some of them, evenly spread, in order; of all where these are few.
        longest: Of the longest of all; 0 where there are none.
    """

    sample: tuple[int, ...]
    longest: int

    @property
    def mean(self) -> float:
        """Tokens of one, on average."""
        return sum(self.sample) / max(1, len(self.sample))

    def most(self, n: int) -> int:
        """Return what `n` of them have together at most."""
        longest = sorted(self.sample, reverse=True)[:n]
        known = sum(longest) if len(self.sample) < SAMPLED else self.longest * len(longest)
        return known + self.longest * (n - len(longest))

    def of(self, n: int) -> tuple[int, ...]:
        """Return the lengths of `n` typical ones, or of 1,000 where these are more."""
        have, wanted = len(self.sample), min(n, SAMPLED)
        if wanted >= have:
            return self.sample
        ordered = sorted(self.sample)
        return tuple(ordered[(2 * place + 1) * have // (2 * wanted)] for place in range(wanted))


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
        self.counted_data = cache(self._counted_data)
        self.counted_uses = cache(self._counted_uses)
        self.looked_at = cache(self._looked_at)
        self.row_lengths = cache(self._row_lengths)
        self.prompt_lengths = cache(self._prompt_lengths)

    def _model(self, use: Use) -> ModelCard:
        return registry.adapter(Kind.MODEL, use.name).card(use.settings)

    def _located(self, use: Use) -> ModelRef:
        return registry.adapter(Kind.MODEL, use.name).locate(use.settings)

    def _source(self, use: Use) -> SourceCard:
        return registry.adapter(Kind.DATA, use.name).card(use.settings)

    def size(self, source: Use) -> int:
        """Return how many rows a data source has."""
        return self.source(source).rows

    def counted(self, recipe: Recipe) -> Recipe:
        """Return a recipe with numbers of rows in place of `all`, so that equal work is one recipe.

        Raises:
            OSError: A source cannot be read.
            ValueError: There is something wrong with one.
        """
        data, mitigations = recipe.data, self.counted_uses(recipe.mitigations)
        if data is not None and not data.is_counted:
            data = self.counted_data(data)
        if data is recipe.data and mitigations is recipe.mitigations:
            return recipe
        return recipe.model_copy(update={"data": data, "mitigations": mitigations})

    def _counted_data(self, data: DataRecipe) -> DataRecipe:
        return data.counted(self.size)

    def _counted_uses(self, uses: tuple[Use, ...]) -> tuple[Use, ...]:
        found = [use.settings.counted(self.size) for use in uses]
        if all(settings is use.settings for settings, use in zip(found, uses, strict=True)):
            return uses
        return tuple(replace(use, settings=settings) for settings, use in zip(found, uses, strict=True))

    def uncategorised(self, source: Use) -> int:
        """Return how many rows of a data source have no category."""
        return sum(not row.category for row in registry.adapter(Kind.DATA, source.name).rows(source.settings))

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

    def row_faults(self, tuner: Use, model: Use, source: Use, draws: tuple[Draw, ...]) -> tuple[str, ...]:
        """Return why a fine-tuner cannot train a model on some rows: of 200 of them, and of the longest.

        Args:
            tuner: The fine-tuner.
            model: The model.
            source: Where the rows are from.
            draws: How they are drawn.
        """
        adapter = registry.adapter(Kind.TUNER, tuner.name)
        if not isinstance(adapter, TunerWithRows):
            return ()
        return tuple(adapter.look(tuner.settings, self.looked_at(source, draws), self.located(model)))

    @staticmethod
    def drawn(source: Use, draws: tuple[Draw, ...]) -> Sequence[ChatRow]:
        """Return the rows of a source that are drawn, each once, in its order."""
        rows = registry.adapter(Kind.DATA, source.name).rows(source.settings)
        chosen = {row.row_id for draw in draws for row in drawn(rows, draw)}
        return [row for row in rows if row.row_id in chosen]

    def _looked_at(self, source: Use, draws: tuple[Draw, ...]) -> Sequence[ChatRow]:
        chosen = self.drawn(source, draws)
        return list(dict.fromkeys([*_spread(chosen, LOOKED_AT), *heapq.nlargest(LONGEST, chosen, key=_row_size)]))

    def asking_objection(self, asked: GenerateRecipe, model: Use, benchmark: Use, system: str | None) -> str | None:
        """Return why a generator cannot ask a model the prompts of a benchmark, or None."""
        adapter = registry.adapter(Kind.GENERATOR, asked.use.name)
        if not isinstance(adapter, GeneratorWithPrompts):
            return None
        longest = self.prompt_lengths(model, benchmark, system).longest
        return adapter.objection(asked.use.settings, asked.decoding, self.located(model), longest)

    def generating_notes(self, generator: Use, decoding: Decoding, model: Use) -> tuple[str, ...]:
        """Return what a generator says of how it will ask a model.

        Raises:
            ValueError: It cannot ask it so.
        """
        adapter = registry.adapter(Kind.GENERATOR, generator.name)
        if not isinstance(adapter, GeneratorWithNotes):
            return ()
        return tuple(adapter.notes(generator.settings, decoding, self.located(model)))

    @staticmethod
    def tuning_notes(tuner: Use) -> tuple[str, ...]:
        """Return what a fine-tuner says of its settings."""
        adapter = registry.adapter(Kind.TUNER, tuner.name)
        return tuple(adapter.notes(tuner.settings)) if isinstance(adapter, TunerWithNotes) else ()

    def row_remarks(self, tuner: Use, model: Use, source: Use, draws: tuple[Draw, ...]) -> tuple[str, ...]:
        """Return what a fine-tuner says of the rows that a model will read: of 1,000 of them at most, and the longest.

        Args:
            tuner: The fine-tuner.
            model: The model.
            source: Where the rows are from.
            draws: How they are drawn.
        """
        adapter, reader = registry.adapter(Kind.TUNER, tuner.name), registry.adapter(Kind.MODEL, model.name)
        if not isinstance(adapter, TunerWithRemarks):
            return ()
        rows = self.drawn(source, draws)
        some = list(dict.fromkeys([*_spread(rows, SAMPLED), *heapq.nlargest(LONGEST, rows, key=_row_size)]))
        with _counting(model, source):
            lengths = reader.row_lengths(model.settings, some)
        of = "" if len(some) == len(rows) else f" that were looked at, of {len(rows):,} in all"
        return tuple(remark + of for remark in adapter.remarks(tuner.settings, lengths))

    @staticmethod
    def measures(judge: Use) -> Measure:
        """Return what a judge measures."""
        return registry.adapter(Kind.JUDGE, judge.name).measures

    def _row_lengths(self, model: Use, source: Use) -> Lengths:
        rows = registry.adapter(Kind.DATA, source.name).rows(source.settings)
        adapter = registry.adapter(Kind.MODEL, model.name)
        with _counting(model, source):
            return _lengths(rows, _row_size, lambda some: adapter.row_lengths(model.settings, some))

    def _prompt_lengths(self, model: Use, benchmark: Use, system: str | None) -> Lengths:
        adapter = registry.adapter(Kind.MODEL, model.name)
        with _counting(model, benchmark):
            return _lengths(
                self.prompts(benchmark),
                lambda prompt: sum(len(turn.text) for turn in prompt.turns),
                lambda some: adapter.prompt_lengths(model.settings, some, system),
            )


def _row_size(row: ChatRow) -> int:
    return sum(len(turn.text) for turn in row.turns)


def _spread(items: Sequence[T], most: int) -> list[T]:
    """Return so many items at most, evenly spread."""
    return [items[len(items) * place // most] for place in range(most)] if len(items) > most else list(items)


def _lengths(items: Sequence[T], size: Callable[[T], int], measured: Callable[[Sequence[T]], Sequence[int]]) -> Lengths:
    """Measure some items out of all, evenly spread, and those with the most characters."""
    if not items:
        return Lengths((), 0)
    some = _spread(items, SAMPLED)
    most = heapq.nlargest(LONGEST, items, key=size) if len(items) > SAMPLED else []
    found = measured([*some, *most])
    return Lengths(tuple(found[: len(some)]), max(found))


@contextmanager
def _counting(model: Use, what: Use) -> Iterator[None]:
    """Say what cannot be counted.

    Raises:
        PlanError: The model's tokenizer or template cannot take it, and so neither can the run.
    """
    try:
        yield
    except (OSError, ValueError) as error:
        raise PlanError(
            f"`{model}` cannot read `{what}`: {error}", todo="mend the model's tokenizer or template, or the texts"
        ) from error
