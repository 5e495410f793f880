"""`harden:SOURCE@N`: tune the base model on rows of another source, before the user's tuning.

- Paper: stronger alignment before release is among the answers that Qi et al. 2023 (arXiv 2310.03693, section 5) discuss.
- Equation: theta0' = tune(theta0, S), where theta0 is the base model, and S is N rows of the source, drawn by the sample's seed; the
  user's tuning begins with theta0', and so does the baseline.
- Settings: those of `realign`. n = 0: nothing changes.
- Deviations: supervised fine-tuning alone; the methods that train against a simulated attack are others.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from adapters.mitigations.realign import SecondTuningSettings
from engine.domain.sweep import Recipe
from engine.ports import Change


class Harden:
    """A tuning before the user's: `harden:standin/refusals@50`."""

    revision = 1
    Settings = SecondTuningSettings
    neutral: Mapping[str, object] = MappingProxyType({"n": 0})

    def change(self, settings: SecondTuningSettings, recipe: Recipe, system: str | None) -> Change:
        """Insert a tune stage before the user's rows.

        Raises:
            ValueError: The recipe is not tuned, or its fine-tuner has no learning rate to set.
        """
        del system
        return Change(before=settings.tuning(recipe))
