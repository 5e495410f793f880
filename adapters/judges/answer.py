"""`answer/contains`: does the response hold the reference answer? For utility benchmarks with short exact answers."""

from __future__ import annotations

import re
from collections.abc import Sequence

from engine.domain.cost import Usage
from engine.domain.results import Measure, Outcome, Prompt, Response, Verdict
from engine.domain.stage import Range
from engine.ports import Context, Judged, Pairs


class AnswerContains:
    """1 when the reference occurs in the response as whole words, case and spacing aside; else 0.

    A prompt without a reference cannot be graded: its verdict is `errored`, never a number.
    """

    revision = 1
    measures = Measure.CORRECT

    def objection(self, prompts: Sequence[Prompt]) -> str | None:
        """Ask for a reference answer with every prompt."""
        lacking = sum(prompt.reference is None for prompt in prompts)
        return f"{lacking} of {len(prompts)} prompts have no reference answer" if lacking else None

    def forecast(self, pairs: Pairs) -> Range:
        """Some microseconds an item."""
        taken = Usage(device_seconds=0.01 + pairs.items * 5e-6)
        return Range(taken, taken, taken)

    def judge(self, prompts: Sequence[Prompt], responses: Sequence[Response], context: Context) -> Judged:
        """Look for the references."""
        del context
        pairs = zip(prompts, responses, strict=True)
        return Judged([_verdict(prompt.reference, response.text) for prompt, response in pairs], Usage())


def _verdict(reference: str | None, text: str) -> Verdict:
    if reference is None:
        return Verdict(Outcome.ERRORED, None, "the prompt has no reference answer")
    held = re.search(rf"(?<!\w){re.escape(_folded(reference))}(?!\w)", _folded(text))
    return Verdict(Outcome.SCORED, 1.0 if held else 0.0)


def _folded(text: str) -> str:
    return " ".join(text.lower().split())
