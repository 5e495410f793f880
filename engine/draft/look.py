"""A look at all that was named: cards, notes, and the tokens of the longest row. Nothing is chosen here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

from engine import registry
from engine.domain.adapters import Kind, Use
from engine.domain.errors import PlanError
from engine.draft.named import Chosen, named, with_setting
from engine.plan.catalogue import Catalogue
from engine.plan.mitigations import reason
from engine.ports import BenchmarkCard, FirstJob, ModelCard, ModelWithNotes, SourceCard
from engine.spec.positions import visible

T = TypeVar("T")

LEAVING_OUT = {"refused": "skip"}
"""The setting by which data sources that have it leave out records that are no training example."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What somebody asked for, each as they wrote it.

    Attributes:
        model: An adapter as a spec has it, or a path; and so are the others.
        data: At least one.
        benchmarks: Of harm, at least one.
        utility: Empty for none.
        over_refusal: Empty for none.
        judges: Of harm; none for what there is without an API.
        skip_refused: Whether records that are no training example are left out.
        allow_upload: Whether rows may go to a provider.
    """

    model: str
    data: tuple[str, ...]
    benchmarks: tuple[str, ...]
    utility: str = ""
    over_refusal: str = ""
    judges: tuple[str, ...] = ()
    skip_refused: bool = False
    allow_upload: bool = False


@dataclass(frozen=True, slots=True)
class ReadModel:
    """The model: what was named, its card, and what else its adapter says of it."""

    named: Chosen
    card: ModelCard
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ReadSource:
    """A data source: what was named, and its card.

    Attributes:
        leaves_out: Whether it was told here to leave out records, for some are no training example.
    """

    named: Chosen
    card: SourceCard
    leaves_out: bool = False


@dataclass(frozen=True, slots=True)
class ReadBenchmark:
    """A benchmark: what was named, and its card."""

    named: Chosen
    card: BenchmarkCard


@dataclass(frozen=True, slots=True)
class FirstLook:
    """What the files say.

    Attributes:
        job: Model and longest training row, for adapters that say how to begin.
        judges: Those that were named.
        utility: None where none was named.
        over_refusal: None where none was named.
    """

    model: ReadModel
    sources: tuple[ReadSource, ...]
    benchmarks: tuple[ReadBenchmark, ...]
    utility: ReadBenchmark | None
    over_refusal: ReadBenchmark | None
    judges: tuple[Chosen, ...]
    job: FirstJob

    @property
    def measured(self) -> tuple[tuple[str, ReadBenchmark], ...]:
        """The benchmarks beside those of harm, by the field of the recipe."""
        further = (("utility", self.utility), ("over_refusal", self.over_refusal))
        return tuple((name, one) for name, one in further if one is not None)


def look(wish: Wish, catalogue: Catalogue) -> FirstLook:
    """Find and read what was named.

    Raises:
        PlanError: Something is not there, or cannot be used as it is.
        SpecError: An adapter with settings is no YAML.
    """
    wanted = named(Kind.MODEL, wish.model, "--model")
    sources = [named(Kind.DATA, text, "--data") for text in dict.fromkeys(wish.data)]
    benchmarks = [named(Kind.BENCHMARK, text, "--benchmark") for text in dict.fromkeys(wish.benchmarks)]
    utility = named(Kind.BENCHMARK, wish.utility, "--utility", has_references=True) if wish.utility else None
    over_refusal = named(Kind.BENCHMARK, wish.over_refusal, "--over-refusal") if wish.over_refusal else None
    judges = tuple(named(Kind.JUDGE, text, "--judge") for text in wish.judges)
    model = _model(wanted, catalogue)
    read = tuple(_source(one, catalogue, skip_refused=wish.skip_refused) for one in sources)
    longest = max(catalogue.row_lengths(wanted.use, one.named.use).longest for one in read)
    return FirstLook(
        model=model,
        sources=read,
        benchmarks=tuple(_measured(one, "--benchmark", catalogue) for one in benchmarks),
        utility=_measured(utility, "--utility", catalogue) if utility else None,
        over_refusal=_measured(over_refusal, "--over-refusal", catalogue) if over_refusal else None,
        judges=judges,
        job=FirstJob(catalogue.located(wanted.use), model.card, longest),
    )


def _model(wanted: Chosen, catalogue: Catalogue) -> ReadModel:
    use = wanted.use
    card = _read("--model", use, catalogue.model)
    adapter = registry.adapter(Kind.MODEL, use.name)
    notes = (
        _read("--model", use, lambda one: adapter.notes(one.settings)) if isinstance(adapter, ModelWithNotes) else ()
    )
    return ReadModel(wanted, card, tuple(notes))


def _source(wanted: Chosen, catalogue: Catalogue, *, skip_refused: bool) -> ReadSource:
    """Read a data source; records that are no training example stop it, unless they are to be left out."""
    use, less = wanted.use, with_setting(Kind.DATA, wanted.use, **LEAVING_OUT)
    try:
        card = catalogue.source(use)
    except (OSError, ValueError) as error:
        rest = _rows_without(less, catalogue)
        if rest is None or less is None:
            raise _unreadable("--data", use, error) from error
        if not skip_refused:
            todo = f"mend them, or leave them out with --skip-refused: {rest.rows:,} {'row is' if rest.rows == 1 else 'rows are'} good"
            raise _unreadable("--data", use, error, todo) from error
        return ReadSource(replace(wanted, use=less), rest, leaves_out=True)
    return ReadSource(wanted, card)


def _rows_without(less: Use | None, catalogue: Catalogue) -> SourceCard | None:
    """Return the card of a source without the records that are no training example; None where that is not the trouble."""
    try:
        return catalogue.source(less) if less is not None else None
    except (OSError, ValueError):  # then something else is wrong with it, of which the caller tells
        return None


def _measured(wanted: Chosen, option: str, catalogue: Catalogue) -> ReadBenchmark:
    try:
        return ReadBenchmark(wanted, catalogue.benchmark(wanted.use))
    except (OSError, ValueError) as error:
        others = " or ".join(f"`{name}:{wanted.use.argument}`" for name in wanted.others)
        raise _unreadable(option, wanted.use, error, f"or is it {others}?" if others else "") from error


def _read(option: str, use: Use, fetch: Callable[[Use], T]) -> T:
    try:
        return fetch(use)
    except (OSError, ValueError) as error:
        raise _unreadable(option, use, error) from error


def _unreadable(option: str, use: Use, error: OSError | ValueError, todo: str = "") -> PlanError:
    return PlanError(f"cannot use `{visible(str(use))}`: {visible(reason(error))}", where=option, todo=visible(todo))
