"""What the engine asks of an adapter: one Protocol a kind, and the small frozen things that pass through them.

An adapter is a class with no arguments, found by entry point (`engine.registry`). Its `revision` is an integer that
goes into every key: raise it when the adapter's behaviour or one of its defaults changes. Where a method takes
`argument`, that is the part of the reference after the colon (`file:data/mine.jsonl`), or empty.

Adapters raise plain Python exceptions; the worker turns them into failed attempts. They import heavy libraries
inside their methods, so that planning starts neither torch nor Ray.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from engine.domain.cost import Usage
from engine.domain.results import ChatRow, Measure, Prompt, Response, TrainingStep, Verdict
from engine.domain.stage import ModelRef, Range
from engine.domain.sweep import GenerateRecipe, Recipe, TuneRecipe
from engine.ports.account import Account

T = TypeVar("T")


class Warm(Protocol):
    """Keeps expensive things between the stages of one host."""

    def get(self, slot: str, key: str, make: Callable[[], T]) -> T:
        """Return what `slot` holds under `key`; if it holds something else, drop that and keep `make()`.

        Args:
            slot: What kind of thing it is; a slot holds one thing at a time.
            key: Which one.
            make: Makes it.
        """
        ...

    def drop(self, slot: str) -> None:
        """Forget what `slot` holds, so that its memory is free."""
        ...


@dataclass(frozen=True, slots=True)
class Context:
    """What stages may use on their host; nothing here bears identity.

    Attributes:
        device: `cpu` or `cuda:0`.
        threads: CPU threads, >= 1.
        generate_batch: Prompts to decode together, >= 1.
        warm: Keeps loaded models between stages.
        account: The provider's account that this host is for; None on a host with a device of its own.
    """

    device: str
    threads: int
    generate_batch: int
    warm: Warm
    account: Account | None = None


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What planning needs to know of a model.

    Attributes:
        pin: `sha256:` and hex digits over its files, or `rev:` and a commit.
        parameters: Number of weights, or None when it cannot be told without loading the model.
        detail: Size, licence and the like, for people.
        standin: True for a made-up model whose numbers say nothing about real ones.
    """

    pin: str
    parameters: int | None
    detail: str
    standin: bool = False


class ModelSource(Protocol):
    """Finds base models."""

    revision: int

    def card(self, argument: str) -> ModelCard:
        """Describe and pin the model, without loading it."""
        ...

    def locate(self, argument: str) -> ModelRef:
        """Say where the model is."""
        ...

    def count_tokens(self, argument: str, texts: Sequence[str]) -> int:
        """Count the tokens of `texts`, template tokens left out, for the forecast."""
        ...


@dataclass(frozen=True, slots=True)
class SourceCard:
    """A data source's data card.

    Attributes:
        pin: `sha256:` and hex digits over its rows.
        rows: Rows to sample from, >= 1.
        tier: `explicit`, `identity` or `benign` (Qi et al. 2023, section 4), `safety`, or `unknown`.
        system: System prompt that its rows are trained with, and that its models are tested with; None for none.
        licence: SPDX name or a short sentence.
        detail: What it is, for people.
        systems: Number of different system prompts among its rows, none counting as one; with more than one, a recipe
            must say which to test with.
    """

    pin: str
    rows: int
    tier: str
    system: str | None
    licence: str
    detail: str
    systems: int = 1


class DataSource(Protocol):
    """Training examples."""

    revision: int

    def card(self, argument: str) -> SourceCard:
        """Describe and pin the source."""
        ...

    def rows(self, argument: str) -> Sequence[ChatRow]:
        """Return every row, in a stable order."""
        ...


@dataclass(frozen=True, slots=True)
class BenchmarkCard:
    """A benchmark's data card.

    Attributes:
        pin: `sha256:` and hex digits over its prompts.
        prompts: Number of prompts, >= 1.
        categories: Category names in their customary order.
        licence: SPDX name or a short sentence.
        detail: What it is, for people.
    """

    pin: str
    prompts: int
    categories: tuple[str, ...]
    licence: str
    detail: str


class Benchmark(Protocol):
    """Held-out prompts."""

    revision: int

    def card(self, argument: str) -> BenchmarkCard:
        """Describe and pin the benchmark."""
        ...

    def prompts(self, argument: str) -> Sequence[Prompt]:
        """Return every prompt, in a stable order."""
        ...


@dataclass(frozen=True, slots=True)
class Cut:
    """A point of a training run at which its weights are wanted: one tune stage.

    Attributes:
        key: The stage's key; the folder of its artifact will be called so.
        settings: How to tune, up to this point.
        folder: An empty folder for the weights (safetensors only); the worker moves it into place.
    """

    key: str
    settings: TuneRecipe
    folder: Path


@dataclass(frozen=True, slots=True)
class Trajectory:
    """One fine-tuning run. Its cuts differ in `epochs` and `max_steps` alone; most often there is one.

    Attributes:
        model: The base model.
        rows: The sample, in its sampled order.
        seed: Seed of the initialisation, the order and the dropout.
        cuts: Where weights are wanted, at least one, the shortest first.
        state: A folder of this run's own, which may not exist yet: what the fine-tuner keeps there to go on after an
            interruption, or to a later cut. Only the fine-tuner looks into it.
        keep_state: Whether the state at the last cut is wanted, for a longer cut that may be asked for one day.
    """

    model: ModelRef
    rows: Sequence[ChatRow]
    seed: int
    cuts: tuple[Cut, ...]
    state: Path
    keep_state: bool = False


@dataclass(frozen=True, slots=True)
class Tuned:
    """What a training run leaves at a cut, beside the weights in the cut's folder.

    Attributes:
        steps: Every optimizer step from the first one up to this cut.
        usage: What was used since the cut named in `after` (or since the beginning): sums over cuts are what was spent.
        after: Key of the cut at whose end this part of the run began; None when it began with the base model.
    """

    steps: Sequence[TrainingStep]
    usage: Usage
    after: str | None = None


@dataclass(frozen=True, slots=True)
class Sharing:
    """What tune stages with some settings can share, as their fine-tuner says. Nothing of it bears identity.

    Attributes:
        prefix_blocked: Empty when a longer run passes exactly through this one; else the field that prevents it.
        pack_blocked: Empty when it can train in one batch with others; else the field that prevents it.
        pack: What must agree with the others in the batch, beside the base model.
    """

    prefix_blocked: str
    pack_blocked: str
    pack: tuple[object, ...] = ()


@dataclass(frozen=True, slots=True)
class Workload:
    """What a forecast is made from.

    Attributes:
        parameters: Weights of the base model, or None when unknown.
        tokens: Tokens of the rows (tune) or of the prompts (generate), template left out.
        items: Rows or prompts.
    """

    parameters: int | None
    tokens: int
    items: int


class FineTuner(Protocol):
    """Tunes models on samples."""

    revision: int

    def objection(self, settings: TuneRecipe) -> str | None:
        """Say why it cannot tune so, or None when it can; asked before anything runs."""
        ...

    def forecast(self, settings: TuneRecipe, workload: Workload) -> Range:
        """Estimate the usage, before anything runs."""
        ...

    def warm_up(self) -> None:
        """Import what every run needs: hosts do it before the first stage is ready."""
        ...

    def sharing(self, settings: TuneRecipe) -> Sharing:
        """Say what tune stages with these settings can share."""
        ...

    def fine_tune(
        self, trajectories: Sequence[Trajectory], context: Context
    ) -> Iterator[tuple[str, Tuned | Exception]]:
        """Tune, and yield (key, what it left) of every cut as soon as its weights are written.

        A run that fails yields its exception for each cut that it did not reach, and the others go on. Several
        trajectories come together only when `sharing` says that they can train in one batch.
        """
        ...


@dataclass(frozen=True, slots=True)
class GenerateTask:
    """One benchmark to answer.

    Attributes:
        key: The stage's key.
        model: The model that answers.
        prompts: What it is asked.
        system: System prompt, or None for none.
        settings: Decoding.
        seed: Seed of the sampling; only matters with temperature > 0.
    """

    key: str
    model: ModelRef
    prompts: Sequence[Prompt]
    system: str | None
    settings: GenerateRecipe
    seed: int


@dataclass(frozen=True, slots=True)
class Generated:
    """The answers: `settings.samples` per prompt, prompts in order."""

    responses: Sequence[Response]
    usage: Usage


class Generator(Protocol):
    """Answers prompts with a model."""

    revision: int

    def forecast(self, settings: GenerateRecipe, workload: Workload) -> Range:
        """Estimate the usage, before anything runs."""
        ...

    def warm_up(self) -> None:
        """Import what every task needs: hosts do it before the first stage is ready."""
        ...

    def generate(self, tasks: Sequence[GenerateTask], context: Context) -> Iterator[tuple[str, Generated | Exception]]:
        """Answer every prompt of every task, and yield (key, answers) of each task as soon as it is done.

        The tasks share the base model and the decoding settings; adapters, prompts, system prompts and seeds differ.
        """
        ...


@dataclass(frozen=True, slots=True)
class Judged:
    """The verdicts, one a response and in the same order, and what they used."""

    verdicts: Sequence[Verdict]
    usage: Usage


@dataclass(frozen=True, slots=True)
class Pairs:
    """What a judge's forecast is made from: prompts with responses, before there are any responses.

    Attributes:
        items: Responses to grade, >= 0.
        prompt_tokens: Tokens of their prompts, once for each response; counted as for the model that answers, >= 0.
        max_new_tokens: Longest response, in tokens of the model that answers, >= 1.
    """

    items: int
    prompt_tokens: int
    max_new_tokens: int


class Judge(Protocol):
    """Grades responses, blind to the cell that they come from.

    A verdict may depend on the prompt and on the response's text alone: equal ones are asked once.
    """

    revision: int
    measures: Measure

    def objection(self, prompts: Sequence[Prompt]) -> str | None:
        """Say why answers to these prompts cannot be graded, or None when they can; asked before anything runs."""
        ...

    def forecast(self, pairs: Pairs) -> Range:
        """Estimate the usage, before anything runs."""
        ...

    def judge(self, prompts: Sequence[Prompt], responses: Sequence[Response], context: Context) -> Judged:
        """Grade `responses[i]` as an answer to `prompts[i]`; the two have one length."""
        ...


class Mitigation(Protocol):
    """Rewrites a recipe before its keys are made; nothing else knows of it."""

    revision: int

    def rewrite(self, recipe: Recipe, argument: str) -> Recipe:
        """Return the recipe with the mitigation applied.

        Raises:
            ValueError: When the recipe lacks what the mitigation needs, or the argument is wrong.
        """
        ...
