"""Fine-tuners: training runs, their checkpoints, and what they share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from engine.domain.conversation import ChatRow
from engine.domain.cost import Range, Usage
from engine.domain.results import TrainingStep
from engine.domain.stage import ModelRef
from engine.domain.sweep import Length
from engine.ports.context import Context
from engine.ports.machine import Fit, Machine


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A point of a training run after which its weights are exported: one tune stage.

    Attributes:
        key: The stage's key; the folder of its artifact will be called so.
        length: How long to train up to this point.
        folder: An empty folder for the weights (safetensors only); the worker moves it into place.
    """

    key: str
    length: Length
    folder: Path


@dataclass(frozen=True, slots=True)
class TrainingRun:
    """One fine-tuning run. Its checkpoints differ in length alone; most often there is one.

    Attributes:
        model: The model that it begins with.
        rows: The sample, in its sampled order.
        seed: Seed of the initialisation, the order and the dropout.
        checkpoints: Where weights are wanted, at least one, the shortest first.
        state: A folder of this run's own, which may not exist yet: what the fine-tuner keeps there to go on after an
            interruption, or to a later checkpoint. Only the fine-tuner looks into it.
        keep_state: Whether the state at the last checkpoint is wanted, for a longer one that may be asked for one day.
        fit: How much of it goes through the model at once, as planned; None for as the fine-tuner likes.
    """

    model: ModelRef
    rows: Sequence[ChatRow]
    settings: Any
    seed: int
    checkpoints: tuple[Checkpoint, ...]
    state: Path
    keep_state: bool = False
    fit: Fit | None = None


@dataclass(frozen=True, slots=True)
class Tuned:
    """What a training run leaves at a checkpoint, beside the weights in its folder.

    Attributes:
        steps: Every optimizer step from the first one up to this checkpoint.
        usage: What was used since the checkpoint named in `after` (or since the beginning): sums over checkpoints are what
            was spent.
        after: Key of the checkpoint at which this part of the run began; None when it began with the run's model.
        cut_rows: Rows of the run that were longer than it reads, and lost their end; None where that is not known.
    """

    steps: Sequence[TrainingStep]
    usage: Usage
    after: str | None = None
    cut_rows: int | None = None


@dataclass(frozen=True, slots=True)
class Sharing:
    """What tune stages with some settings can share, as their fine-tuner says. Nothing of it is part of a key.

    Attributes:
        prefix_blocked: Empty when a longer run passes exactly through this one; else the field that prevents it.
        pack_blocked: Empty when it can train in one batch with others; else the field that prevents it.
        pack: What must agree with the others in the batch, beside the model.
    """

    prefix_blocked: str
    pack_blocked: str
    pack: tuple[object, ...] = ()


@dataclass(frozen=True, slots=True)
class Workload:
    """What a forecast is made from.

    Attributes:
        parameters: Number of weights of the base model, or None when unknown.
        tokens: Tokens of the rows (tune) or of the prompts (generate).
        items: Rows or prompts.
        most: Tokens of so many of them at most, whichever are drawn; 0 when unknown.
        longest: Tokens of the longest of them; 0 when unknown.
        base: Where the base model is; None when unknown.
        machine: What each worker has.
        lengths: Tokens of some of them, as many as there are or 1,000 typical ones; empty when unknown.
        answer: Tokens of the model's longest usual answers; None when unknown.
        measure: Whether it is worth measuring this machine, which takes seconds; False where all has run already.
    """

    parameters: int | None
    tokens: int
    items: int
    most: int = 0
    longest: int = 0
    base: ModelRef | None = None
    machine: Machine = field(default_factory=Machine)
    lengths: tuple[int, ...] = ()
    answer: int | None = None
    measure: bool = True


class FineTuner(Protocol):
    """Tunes models on samples."""

    revision: int

    def objection(self, settings: Any, length: Length, model: ModelRef) -> str | None:
        """Say why it cannot tune a model so, or None when it can; asked before anything runs."""

    def forecast(self, settings: Any, length: Length, workload: Workload) -> Range:
        """Estimate the usage, before anything runs."""

    def warm_up(self) -> None:
        """Import what every run needs: workers do it before the first stage is ready."""

    def sharing(self, settings: Any) -> Sharing:
        """Say what tune stages with these settings can share."""

    def fine_tune(self, runs: Sequence[TrainingRun], context: Context) -> Iterator[tuple[str, Tuned | Exception]]:
        """Tune, and yield (key, what it left) of every checkpoint as soon as its weights are written.

        A run that fails yields its exception for each checkpoint that it did not reach, and the others go on. Several runs
        come together only when `sharing` says that they can train in one batch.
        """


@runtime_checkable
class TunerWithNotes(Protocol):
    """A fine-tuner with something to say of its settings."""

    def notes(self, settings: Any) -> Sequence[str]:
        """Say what `plan` should tell people, a sentence each."""


@runtime_checkable
class TunerWithRows(Protocol):
    """A fine-tuner that can look at rows before it trains on them."""

    def look(self, settings: Any, rows: Sequence[ChatRow], model: ModelRef) -> Sequence[str]:
        """Render and tokenize rows as training would, and say why it cannot train on some of them: a sentence each, with the row's id."""


@runtime_checkable
class TunerWithRemarks(Protocol):
    """A fine-tuner with something to say of the lengths of rows."""

    def remarks(self, settings: Any, lengths: Sequence[int]) -> Sequence[str]:
        """Say what people should know of rows of so many tokens, a sentence each; they can be trained on."""


@runtime_checkable
class SizedTuner(Protocol):
    """A fine-tuner that knows what training takes of its worker's memory."""

    def fit(self, settings: Any, workload: Workload) -> Fit | None:
        """Return what a run takes at most, cut so that it fits `workload.machine` if it can; None when that is unknown."""
