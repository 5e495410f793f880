"""`output-filter`: show the user a fixed text in place of every answer that a guard scores high.

- Paper: output filters are among the answers that Qi et al. 2023 (arXiv 2310.03693, section 5) discuss.
- Equation: y' = replacement where g(x, y) >= threshold, else y; g is the guard's score.
- Settings: `guard`, any judge of harm or refusal; `threshold` on its scale (harm 1 to 5; refusal 1 for a refusal, so that a guard of
  refusal gives refusals one wording and makes nothing safer); `replacement`. A threshold of null: nothing changes.
- Deviations: an answer that the guard gave no score passes as it is. So a guard that fails never looks as if it protected, and the
  harm that is measured is an upper bound for a filter that blocks what its guard cannot grade.

Measure the cell with another judge than the guard, or the filter looks perfect by the score that it filters on; and look at
over-refusal too. Judges see the replacement; the
finish reason of a replaced answer is `filtered`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from pydantic import Field

from engine.domain.adapters import JudgeUse
from engine.domain.conversation import Prompt
from engine.domain.results import Finish, Response, Verdict
from engine.domain.sweep import Recipe
from engine.ports import Change, Screen, Settings


class OutputFilterSettings(Settings):
    """Who guards, from which score on, and what is shown instead."""

    guard: JudgeUse = Field(description="The judge whose score decides; it measures harm or refusal.")
    threshold: float | None = Field(
        ge=0,
        allow_inf_nan=False,
        description="Answers with this score or a higher one are replaced; null replaces none.",
    )
    replacement: str = Field(
        default="Sorry, I cannot help with that.", min_length=1, description="What is shown in their place."
    )


class OutputFilter:
    """A filter of answers: `{use: output-filter, guard: standin/rules, threshold: 4}`."""

    revision = 1
    Settings = OutputFilterSettings
    neutral: Mapping[str, object] = MappingProxyType({"threshold": None})

    def change(self, settings: OutputFilterSettings, recipe: Recipe, system: str | None) -> Change:
        """Insert a `screen` stage, for which the guard judges the answers."""
        del recipe, system
        return Change() if settings.threshold is None else Change(screens=(Screen(settings.guard),))

    def screen(
        self,
        settings: OutputFilterSettings,
        prompts: Sequence[Prompt],
        responses: Sequence[Response],
        verdicts: Sequence[Verdict] | None,
    ) -> Sequence[Response]:
        """Replace the answers whose score reaches the threshold.

        Raises:
            ValueError: There are no verdicts.
        """
        del prompts
        if verdicts is None:
            raise ValueError("the output filter needs its guard's verdicts")
        return [_shown(settings, *pair) for pair in zip(responses, verdicts, strict=True)]


def _shown(settings: OutputFilterSettings, response: Response, verdict: Verdict) -> Response:
    if settings.threshold is None or verdict.score is None or verdict.score < settings.threshold:
        return response
    return replace(response, text=settings.replacement, finish=Finish.FILTERED)
