"""Generators: answers to prompts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from engine.domain.conversation import Prompt
from engine.domain.cost import Range, Usage
from engine.domain.results import Response
from engine.domain.stage import ModelRef
from engine.domain.sweep import Decoding
from engine.ports.context import Context
from engine.ports.tuner import Workload


@dataclass(frozen=True, slots=True)
class GenerateTask:
    """One benchmark to answer.

    Attributes:
        system: System prompt, or None for none.
        seed: Seed of the sampling; only matters with temperature > 0.
    """

    key: str
    model: ModelRef
    prompts: Sequence[Prompt]
    system: str | None
    decoding: Decoding
    settings: Any
    seed: int


@dataclass(frozen=True, slots=True)
class Generated:
    """The answers: `decoding.samples` per prompt, prompts in order."""

    responses: Sequence[Response]
    usage: Usage


class Generator(Protocol):
    """Answers prompts with a model."""

    revision: int

    def notes(self, settings: Any, decoding: Decoding, model: ModelRef) -> Sequence[str]:
        """Say what `plan` should tell people of how a model will be asked, a sentence each; most often nothing.

        Raises:
            ValueError: The model cannot be asked so.
        """

    def forecast(self, settings: Any, decoding: Decoding, workload: Workload) -> Range:
        """Estimate the usage, before anything runs."""

    def warm_up(self) -> None:
        """Import what every task needs: workers do it before the first stage is ready."""

    def generate(self, tasks: Sequence[GenerateTask], context: Context) -> Iterator[tuple[str, Generated | Exception]]:
        """Answer every prompt of every task, and yield (key, answers) of each task as soon as it is done.

        The tasks share the base model, all but its last layer, the decoding and the settings; last layers, prompts, system
        prompts and seeds differ.
        """
