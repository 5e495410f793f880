"""`realign:SOURCE@N`: tune once more after the user's tuning, on rows of another source.

- Paper: re-running safety tuning is among the answers that Qi et al. 2023 (arXiv 2310.03693, section 5) discuss; N = 1 is the
  one-shot patch of arXiv 2601.01887.
- Equation: theta' = tune(theta, S), where theta is the tuned model, and S is N rows of the source, drawn by the sample's seed.
- Settings: `source`, `n`; the length in `epochs` or `steps`, the learning rate and the fine-tuner are the recipe's own unless they
  are given. n = 0: nothing changes.
- Deviations: supervised fine-tuning alone, on rows of refusals for example; no preference tuning.

The rows need not be safety rows: with others this is a user's second fine-tuning, or an attacker's after a repair.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Self

from pydantic import Field, model_validator

from adapters.mitigations.sample import SampleSettings
from engine.domain.adapters import TunerUse, Use
from engine.domain.sweep import Recipe, TuneRecipe
from engine.ports import Change, Tune


class SecondTuningSettings(SampleSettings):
    """Which rows, how long, and how; written `SOURCE@N` for short."""

    epochs: int | None = Field(
        default=None, ge=1, description="Passes over the rows; omitted: the recipe's own length."
    )
    steps: int | None = Field(default=None, ge=1, description="Optimizer steps, instead of `epochs`.")
    lr: float | None = Field(
        default=None, gt=0, description="Learning rate; omitted: that of the fine-tuner's settings."
    )
    tuner: TunerUse | None = Field(
        default=None, description="The fine-tuner with its settings; omitted: the recipe's own, as it is set there."
    )

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if self.epochs is not None and self.steps is not None:
            raise ValueError("`epochs` and `steps` both say how long to train: give one of them")
        return self

    def tuning(self, recipe: Recipe) -> tuple[Tune, ...]:
        """Return the step that tunes on these rows; none where there are no rows.

        Raises:
            ValueError: The recipe is not tuned, or its fine-tuner has no learning rate to set.
        """
        if self.n == 0:
            return ()
        if recipe.data is None or recipe.tune is None:
            raise ValueError("the recipe is not tuned: give it `data` and `tune`, or leave this mitigation out")
        use = self.tuner or recipe.tune.use
        if self.lr is not None:
            use = _with_lr(use, self.lr)
        return (Tune(self.drawn(recipe), self._lasting(recipe.tune, use)),)

    def _lasting(self, own: TuneRecipe, use: Use) -> TuneRecipe:
        if self.epochs is not None:
            return TuneRecipe(use=use, epochs=self.epochs)
        return own.model_copy(update={"use": use}) if self.steps is None else TuneRecipe(use=use, steps=self.steps)


def _with_lr(use: Use, lr: float) -> Use:
    model = type(use.settings)
    if "lr" not in model.model_fields:
        raise ValueError(f"the fine-tuner `{use.name}` has no setting `lr`: give `tuner` with the settings that it has")
    return replace(use, settings=model.model_validate({**use.settings.written(), "lr": lr}))


class Realign:
    """A second tuning, after the user's: `realign:standin/refusals@20`."""

    revision = 1
    Settings = SecondTuningSettings
    neutral: Mapping[str, object] = MappingProxyType({"n": 0})

    def change(self, settings: SecondTuningSettings, recipe: Recipe, system: str | None) -> Change:
        """Insert a tune stage after the training.

        Raises:
            ValueError: The recipe is not tuned, or its fine-tuner has no learning rate to set.
        """
        del system
        return Change(after=settings.tuning(recipe))
