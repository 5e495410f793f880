"""`answer/contains`: does the response hold a reference answer? For utility benchmarks with short exact answers."""

from __future__ import annotations

from collections.abc import Sequence

from adapters.phrases import holds
from adapters.rule_judge import RuleJudge
from engine.domain.conversation import Prompt
from engine.domain.results import Measure, Outcome, Response, Verdict
from engine.ports import NoSettings


class AnswerContains(RuleJudge):
    """1 when one of the references occurs in the response as whole words, case and spacing aside; else 0.

    A number has to be the whole number: 3 is not in 3.5. A prompt without a reference, or with empty ones alone, cannot be
    graded: its verdict is `errored`, never a number.
    """

    revision = 2
    measures = Measure.CORRECT

    def objection(self, settings: NoSettings, prompts: Sequence[Prompt]) -> str | None:
        """Ask for a reference answer with every prompt."""
        del settings
        lacking = sum(not _references(prompt) for prompt in prompts)
        return f"{lacking} of {len(prompts)} prompts have no reference answer" if lacking else None

    def verdict(self, prompt: Prompt, response: Response) -> Verdict:
        """Look for the references."""
        references = _references(prompt)
        if not references:
            return Verdict(Outcome.ERRORED, None, "the prompt has no reference answer")
        is_held = any(holds(response.text, reference) for reference in references)
        return Verdict(Outcome.SCORED, 1.0 if is_held else 0.0)


def _references(prompt: Prompt) -> list[str]:
    return [reference for reference in prompt.references if reference.strip()]
