"""`scale:FACTOR`: take a part of what training changed in the weights (weight interpolation; for LoRA, adapter scaling).

- Paper: WiSE-FT, Wortsman et al. 2022 (arXiv 2109.01903); against the loss of safety, arXiv 2412.19512.
- Equation: theta' = theta0 + a (theta − theta0), where theta0 is the starting model, theta the tuned one, and a the factor.
- Settings: `factor`, a >= 0: 0 is the starting model, 1 the tuned one (nothing changes), more than 1 goes beyond it.
- Deviations: none. A LoRA adapter (theta − theta0 = s·B·A) stays one, with a·B for B. Otherwise both models are read in float32 on
  the CPU, 8 bytes of memory per weight, and whole weights in float32 are written.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from pydantic import Field

from adapters.mitigations import weights
from engine.domain.sweep import Recipe
from engine.ports import Change, Context, EditWeights, Settings, WeightsEdit


class ScaleSettings(Settings):
    """How much of the change is kept."""

    argument = "factor"

    factor: float = Field(
        ge=0, allow_inf_nan=False, strict=False, description="Share of the change that is kept: 0 none, 1 all of it."
    )


class Scale:
    """A part of what training changed: `scale:0.5`."""

    revision = 1
    Settings = ScaleSettings
    neutral: Mapping[str, object] = MappingProxyType({"factor": 1.0})

    def change(self, settings: ScaleSettings, recipe: Recipe, system: str | None) -> Change:
        """Insert a `weights` stage after the training.

        Raises:
            ValueError: The recipe is not tuned.
        """
        del system
        if settings.factor == 1:
            return Change()
        if recipe.tune is None:
            raise ValueError("the recipe is not tuned, and has no change of weights to scale")
        return Change(after=(EditWeights(),))

    def edit_weights(self, settings: ScaleSettings, edit: WeightsEdit, context: Context) -> None:
        """Write the scaled adapter, or the scaled whole weights.

        Raises:
            ValueError: The model is not on this machine, or not the starting model with something on top.
        """
        added = weights.added(edit)
        if len(added) == 1 and weights.is_lora(added[0]):
            weights.scale_lora(added[0], settings.factor, edit.folder)
        else:
            weights.interpolate(edit, settings.factor, context)
