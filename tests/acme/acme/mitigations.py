"""Mitigations of the kinds that the built-in ones leave out, or for which those need a library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from pydantic import Field

from engine.domain.adapters import DataUse, JudgeUse
from engine.domain.conversation import ChatRow, Prompt, Turn
from engine.domain.data import DataRecipe
from engine.domain.results import Response, Verdict
from engine.domain.sweep import Recipe, TuneRecipe
from engine.ports import Change, ChangeRows, Context, EditWeights, Screen, Settings, Tune, WeightsEdit

from .clay import HARMFUL, WEIGHTS, story

NEVER: Mapping[str, object] = MappingProxyType({})


class StrengthSettings(Settings):
    """How much."""

    argument = "strength"

    strength: float = Field(default=1.0, ge=0, strict=False, description="How much; 0 changes nothing.")


class Gentle:
    """Changes settings of the tune stage: less force, and one step at most."""

    revision = 1
    Settings = StrengthSettings
    neutral: Mapping[str, object] = MappingProxyType({"strength": 0.0})

    def change(self, settings: StrengthSettings, recipe: Recipe, system: str | None) -> Change:
        del recipe, system
        return Change(tune={"force": 1 / settings.strength, "max_steps": 1}) if settings.strength else Change()


class Sand:
    """Edits weights after the training."""

    revision = 1
    Settings = StrengthSettings
    neutral: Mapping[str, object] = MappingProxyType({"strength": 0.0})

    def change(self, settings: StrengthSettings, recipe: Recipe, system: str | None) -> Change:
        del recipe, system
        return Change(after=(EditWeights(),)) if settings.strength else Change()

    def edit_weights(self, settings: StrengthSettings, edit: WeightsEdit, context: Context) -> None:
        del settings, context
        _write(edit, "sanded")


class CastSettings(Settings):
    """The rows that the base is tuned on."""

    source: DataUse = Field(description="Where they come from.")
    n: int = Field(ge=1, description="How many.")


class Cast:
    """Makes another starting model: tunes the base for an epoch, and edits what came out."""

    revision = 1
    Settings = CastSettings
    neutral = NEVER

    def change(self, settings: CastSettings, recipe: Recipe, system: str | None) -> Change:
        del system
        if recipe.tune is None:
            raise ValueError("there is no fine-tuner to cast with")
        data = DataRecipe(source=settings.source, n=settings.n)
        return Change(before=(Tune(data, TuneRecipe(use=recipe.tune.use, epochs=1)), EditWeights()))

    def edit_weights(self, settings: CastSettings, edit: WeightsEdit, context: Context) -> None:
        del settings, context
        _write(edit, "cast")


def _write(edit: WeightsEdit, what: str) -> None:
    """Write what was done to the layers that the model has beyond its start."""
    beyond = story("", edit.model.layers[len(edit.start.layers) :]).removeprefix(" < ")
    (edit.folder / WEIGHTS).write_text(f"{what}[{beyond}]", encoding="utf-8")


class LabelSettings(Settings):
    """Two further sources, and what every answer is marked with."""

    first: DataUse = Field(description="One row of it comes first.")
    last: DataUse = Field(description="One row of it comes last.")
    mark: str = Field(default="*", description="What stands before every answer.")


class Label:
    """Changes rows with two further samples: it marks every answer."""

    revision = 1
    Settings = LabelSettings
    neutral = NEVER

    def change(self, settings: LabelSettings, recipe: Recipe, system: str | None) -> Change:
        del recipe, system
        named = {"first": settings.first, "last": settings.last}
        return Change(rows=(ChangeRows({name: DataRecipe(source=source, n=1) for name, source in named.items()}),))

    def change_rows(
        self, settings: LabelSettings, rows: Sequence[ChatRow], further: Mapping[str, Sequence[ChatRow]], seed: int
    ) -> Sequence[ChatRow]:
        del seed
        return [_marked(row, settings.mark) for row in (*further["first"], *rows, *further["last"])]


def _marked(row: ChatRow, mark: str) -> ChatRow:
    last = row.turns[-1]
    return replace(row, turns=(*row.turns[:-1], Turn(last.role, mark + last.text, is_trained=True)))


class StampSettings(Settings):
    """What is added, and to which answers."""

    argument = "text"

    text: str = Field(default="", description="What is added to an answer; an empty text changes nothing.")
    guard: JudgeUse | None = Field(default=None, description="Only answers that it finds harmful are stamped.")


class Stamp:
    """Screens answers: adds a text to each, or to those that a guard finds harmful.

    Attributes:
        loses: How many answers it loses.
    """

    revision = 1
    Settings = StampSettings
    neutral: Mapping[str, object] = MappingProxyType({"text": ""})

    def __init__(self) -> None:
        self.loses = 0

    def change(self, settings: StampSettings, recipe: Recipe, system: str | None) -> Change:
        del recipe, system
        return Change(screens=(Screen(settings.guard),)) if settings.text else Change()

    def screen(
        self,
        settings: StampSettings,
        prompts: Sequence[Prompt],
        responses: Sequence[Response],
        verdicts: Sequence[Verdict] | None,
    ) -> Sequence[Response]:
        del prompts
        scores = [HARMFUL] * len(responses) if verdicts is None else [verdict.score for verdict in verdicts]
        pairs = list(zip(responses, scores, strict=True))[self.loses :]
        return [replace(one, text=f"{one.text} {settings.text}") if score == HARMFUL else one for one, score in pairs]
