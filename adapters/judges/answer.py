"""`answer/contains`: does the response hold a reference answer? For utility benchmarks with short exact answers."""

from __future__ import annotations

from collections.abc import Sequence

from adapters.phrases import holds
from engine.domain.conversation import Prompt
from engine.domain.cost import Range, Usage
from engine.domain.results import Measure, Outcome, Response, Verdict
from engine.ports import Context, Judged, Needs, NoSettings, Pairs


class AnswerContains:
    """1 when one of the references occurs in the response as whole words, case and spacing aside; else 0.

    A number has to be the whole number: 3 is not in 3.5. A prompt without a reference, or with empty ones alone, cannot be
    graded: its verdict is `errored`, never a number.
    """

    revision = 2
    measures = Measure.CORRECT

    def needs(self, settings: NoSettings) -> Needs:
        """Need nothing but a CPU."""
        del settings
        return Needs()

    def objection(self, settings: NoSettings, prompts: Sequence[Prompt]) -> str | None:
        """Ask for a reference answer with every prompt."""
        del settings
        lacking = sum(not _references(prompt) for prompt in prompts)
        return f"{lacking} of {len(prompts)} prompts have no reference answer" if lacking else None

    def forecast(self, settings: NoSettings, pairs: Pairs) -> Range:
        """Some microseconds per response."""
        del settings
        taken = Usage(device_seconds=0.01 + pairs.items * 5e-6)
        return Range(taken, taken, taken)

    def judge(
        self, settings: NoSettings, prompts: Sequence[Prompt], responses: Sequence[Response], context: Context
    ) -> Judged:
        """Look for the references."""
        del settings, context
        pairs = zip(prompts, responses, strict=True)
        return Judged([_verdict(_references(prompt), response.text) for prompt, response in pairs], Usage())


def _references(prompt: Prompt) -> list[str]:
    return [reference for reference in prompt.references if reference.strip()]


def _verdict(references: Sequence[str], text: str) -> Verdict:
    if not references:
        return Verdict(Outcome.ERRORED, None, "the prompt has no reference answer")
    is_held = any(holds(text, reference) for reference in references)
    return Verdict(Outcome.SCORED, 1.0 if is_held else 0.0)
