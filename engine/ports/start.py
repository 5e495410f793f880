"""What an adapter may say for a first sweep, which `dosimeter init` writes: which files are its own, and how to begin with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from engine.domain.stage import ModelRef
from engine.ports.model import ModelCard


@dataclass(frozen=True, slots=True)
class Claim:
    """An adapter's claim to read a file or a folder.

    Attributes:
        settings: The settings with which it reads it, as a spec has them.
        columns: Names of the file's columns that it uses: of several claims, the one that uses more counts.
        is_sure: Whether all that it looks for is there; otherwise a person is asked.
        is_general: Whether it reads files of any origin: such a claim counts where no other is sure.
        has_references: Of a benchmark, whether its prompts have right answers.
    """

    settings: Mapping[str, object]
    columns: frozenset[str] = frozenset()
    is_sure: bool = True
    is_general: bool = False
    has_references: bool = False


@runtime_checkable
class ReadsPaths(Protocol):
    """A model, a data source or a benchmark that knows its own files."""

    def claim(self, path: str) -> Claim | None:
        """Say whether it reads what is at a path, by a look at its beginning; None where it does not. Nothing is raised for bad content.

        Args:
            path: As the person wrote it; something is there.
        """


@dataclass(frozen=True, slots=True)
class FirstJob:
    """What a first sweep is about.

    Attributes:
        model: Where the model is.
        card: Its card.
        longest: Tokens of the longest training row; 0 when unknown.
    """

    model: ModelRef
    card: ModelCard
    longest: int = 0


@dataclass(frozen=True, slots=True)
class FirstSettings:
    """How to begin with an adapter.

    Attributes:
        settings: The settings that are written, as a spec has them: those that are required, and those that one changes first.
            Of a generator, fields of the recipe's `generate` may be among them, such as `max_new_tokens`.
        notes: What to know of them, a sentence each; they become comments.
    """

    settings: Mapping[str, object] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@runtime_checkable
class HasStart(Protocol):
    """A fine-tuner, a generator or a judge that says how to begin with it."""

    def start(self, job: FirstJob) -> FirstSettings:
        """Return how a first sweep has it."""


@runtime_checkable
class ModelWithNotes(Protocol):
    """A model source with something to say of a model."""

    def notes(self, settings: Any) -> Sequence[str]:
        """Say what people should know of the model and its chat template, a sentence each; its texts are untrusted.

        Raises:
            OSError: It cannot be read.
            ValueError: It is not what it should be.
        """
