"""Generators: answers to prompts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from engine.domain.conversation import Prompt
from engine.domain.cost import Range, Usage
from engine.domain.results import Response
from engine.domain.stage import ModelRef
from engine.domain.sweep import Decoding
from engine.ports.context import Context
from engine.ports.machine import Fit
from engine.ports.tuner import Workload


@dataclass(frozen=True, slots=True)
class GenerateTask:
    """One benchmark to answer.

    Attributes:
        system: System prompt, or None for none.
        seed: Seed of the sampling; only matters with temperature > 0.
        fit: How much of it goes through the model at once, as planned; None for as the generator likes.
    """

    key: str
    model: ModelRef
    prompts: Sequence[Prompt]
    system: str | None
    decoding: Decoding
    settings: Any
    seed: int
    fit: Fit | None = None


@dataclass(frozen=True, slots=True)
class Generated:
    """The answers: `decoding.samples` per prompt, prompts in order."""

    responses: Sequence[Response]
    usage: Usage


class Generator(Protocol):
    """Answers prompts with a model."""

    revision: int

    def forecast(self, settings: Any, decoding: Decoding, workload: Workload) -> Range:
        """Estimate the usage, before anything runs."""

    def warm_up(self) -> None:
        """Import what every task needs: workers do it before the first stage is ready."""

    def generate(self, tasks: Sequence[GenerateTask], context: Context) -> Iterator[tuple[str, Generated | Exception]]:
        """Answer every prompt of every task, and yield (key, answers) of each task as soon as it is done.

        The tasks share the base model, all but its last layer, the decoding and the settings; last layers, prompts, system
        prompts and seeds differ.
        """


@runtime_checkable
class GeneratorWithNotes(Protocol):
    """A generator with something to say of how it will ask a model."""

    def notes(self, settings: Any, decoding: Decoding, model: ModelRef) -> Sequence[str]:
        """Say what `plan` should tell people, a sentence each.

        Raises:
            ValueError: The model cannot be asked so.
        """


@runtime_checkable
class GeneratorWithPrompts(Protocol):
    """A generator that can say what prompts are too long for a model."""

    def objection(self, settings: Any, decoding: Decoding, model: ModelRef, longest: int) -> str | None:
        """Say why it cannot answer a prompt of so many tokens, or None."""


@runtime_checkable
class SizedGenerator(Protocol):
    """A generator that knows what answering takes of its worker's memory."""

    def fit(self, settings: Any, decoding: Decoding, workload: Workload) -> Fit | None:
        """Return what a task takes at most, cut so that it fits `workload.machine` if it can; None when that is unknown."""
