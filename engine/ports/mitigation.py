"""Mitigations: one class each, which says what it changes in a cell and does what it inserts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeAlias, runtime_checkable

from engine.domain.adapters import Use
from engine.domain.conversation import ChatRow, Prompt
from engine.domain.data import DataRecipe
from engine.domain.results import Response, Verdict
from engine.domain.stage import ModelRef
from engine.domain.sweep import Recipe, TuneRecipe
from engine.ports.context import Context


@dataclass(frozen=True, slots=True)
class ChangeRows:
    """Insert a `rows` stage, which the mitigation's `change_rows` does; `further` are samples that it needs besides, by name."""

    further: Mapping[str, DataRecipe] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Tune:
    """Insert a tune stage, on rows of its own."""

    data: DataRecipe
    tune: TuneRecipe


@dataclass(frozen=True, slots=True)
class EditWeights:
    """Insert a `weights` stage, which the mitigation's `edit_weights` does."""


@dataclass(frozen=True, slots=True)
class Screen:
    """Insert a `screen` stage, which the mitigation's `screen` does; `guard` is a judge whose verdicts it needs, if any."""

    guard: Use | None = None


ModelStep: TypeAlias = Tune | EditWeights


@dataclass(frozen=True, slots=True)
class Change:
    """What a mitigation changes in a cell. One that changes nothing leaves the cell as it is, keys and all.

    Attributes:
        before: Steps on the base model, before the user's rows: they make the starting model.
        rows: Stages between the sample and the training.
        tune: Settings of the user's tune stage, by name, that take other values.
        after: Steps after the training.
        system: The system prompt at test ('' for none); None leaves it.
        screens: Stages between the responses and the judges.
    """

    before: tuple[ModelStep, ...] = ()
    rows: tuple[ChangeRows, ...] = ()
    tune: Mapping[str, object] = field(default_factory=dict)
    after: tuple[ModelStep, ...] = ()
    system: str | None = None
    screens: tuple[Screen, ...] = ()


class Mitigation(Protocol):
    """Changes a cell; nothing else knows of it.

    Attributes:
        revision: Raise it when its behaviour or a default changes.
        neutral: Settings with which it changes nothing, such as a strength of 0.
    """

    revision: int
    neutral: Mapping[str, object]

    def change(self, settings: Any, recipe: Recipe, system: str | None) -> Change:
        """Say what it changes.

        Args:
            settings: Its settings.
            recipe: The cell's recipe.
            system: The cell's system prompt at test, after the mitigations before this one; None for none.

        Raises:
            ValueError: The recipe lacks what the mitigation needs.
        """


@runtime_checkable
class RowsChanger(Protocol):
    """A mitigation that inserts `rows` stages."""

    def change_rows(
        self, settings: Any, rows: Sequence[ChatRow], further: Mapping[str, Sequence[ChatRow]], seed: int
    ) -> Sequence[ChatRow]:
        """Return the rows to train on. The same arguments give the same rows.

        Args:
            settings: Its settings.
            rows: The sample, or what mitigations before this one made of it.
            further: The further samples that it asked for, by name.
            seed: The cell's seed.
        """


@dataclass(frozen=True, slots=True)
class WeightsEdit:
    """What a `weights` stage works on.

    Attributes:
        start: The starting model of the cell.
        folder: An empty folder for what replaces, on top of `start`, the layers that `model` has beyond it: a PEFT adapter, or
            all weights (safetensors only).
    """

    model: ModelRef
    start: ModelRef
    folder: Path


@runtime_checkable
class WeightsEditor(Protocol):
    """A mitigation that inserts `weights` stages."""

    def edit_weights(self, settings: Any, edit: WeightsEdit, context: Context) -> None:
        """Write the edited weights. The same arguments give the same weights."""


@runtime_checkable
class Screener(Protocol):
    """A mitigation that inserts `screen` stages."""

    def screen(
        self,
        settings: Any,
        prompts: Sequence[Prompt],
        responses: Sequence[Response],
        verdicts: Sequence[Verdict] | None,
    ) -> Sequence[Response]:
        """Return what the user gets to see, one a response and in the same order.

        Args:
            settings: Its settings.
            prompts: `prompts[i]` was asked.
            responses: What the model answered.
            verdicts: What the guard says of each; None without a guard.
        """
