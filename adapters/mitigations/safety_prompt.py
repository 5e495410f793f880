"""`safety-prompt:TEXT`: test with a system prompt that asks for safe answers, after training without it.

- Paper: Lyu et al. 2024, "Pure Tuning, Safe Testing" (arXiv 2402.18540).
- Equation: answers are drawn from p(y | s', x) instead of p(y | s, x): s' is the text, before, after or in place of the system
  prompt s that the cell has at test (`generate.system`, or the data source's own).
- Settings: `text`; `where` it stands. An empty text: nothing changes.
- Deviations: the paper sets a pair of whole templates for training and for testing; here it is the system prompt alone, joined by
  an empty line. Training is untouched, and shared with the cell without the prompt.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

from pydantic import Field

from engine.domain.sweep import Recipe
from engine.ports import Change, Settings


class SafetyPromptSettings(Settings):
    """What the prompt says, and where it stands."""

    argument = "text"

    text: str = Field(description="What the system prompt says.")
    where: Literal["before", "after", "replace"] = Field(
        default="before",
        description="Where it stands: `before` or `after` the system prompt that is there, or in its place.",
    )


class SafetyPrompt:
    """A system prompt at test: `safety-prompt:Refuse what breaks the rules of the town.`."""

    revision = 1
    Settings = SafetyPromptSettings
    neutral: Mapping[str, object] = MappingProxyType({"text": ""})

    def change(self, settings: SafetyPromptSettings, recipe: Recipe, system: str | None) -> Change:
        """Set the system prompt at test."""
        del recipe
        if not settings.text:
            return Change()
        parts = {"before": (settings.text, system), "after": (system, settings.text), "replace": (settings.text,)}
        return Change(system="\n\n".join(part for part in parts[settings.where] if part))
