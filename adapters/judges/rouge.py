"""`answer/rouge`: how much of a reference answer's wording does the response have? For free answers, such as Alpaca's.

ROUGE (Lin 2004) as Google's package `rouge-score` counts it: in small letters, by words of a-z and 0-9, all else being a space. It
tells wording, not truth, and longer answers than the reference's score less. Beside it, read the answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any, Literal

from pydantic import Field

from adapters.judges.references import graded, objection
from engine.domain.conversation import Prompt
from engine.domain.cost import Range, Usage
from engine.domain.results import Measure, Outcome, Response, Verdict
from engine.ports import Context, Judged, Needs, Pairs, Settings

LONGEST_REFERENCE, LONGEST_RESPONSE = 2_000, 10_000
"""Words; their product is what the longest common subsequence takes of time and memory."""

SECONDS = 0.01
"""For one response."""


class RougeSettings(Settings):
    """Which ROUGE, written `answer/rouge:rouge1` for short."""

    argument = "score"

    score: Literal["rougeL", "rouge1"] = Field(
        default="rougeL",
        description="By the longest common subsequence of words (`rougeL`), or by single words whatever their order (`rouge1`).",
    )
    stem: bool = Field(
        default=False, description="Whether words of more than 3 letters lose their English endings first."
    )


class AnswerRouge:
    """The F1 of ROUGE-L or ROUGE-1 against the best of the references, 0 to 1; an answer without a word scores 0."""

    revision = 1
    measures = Measure.CORRECT
    Settings = RougeSettings

    def needs(self, settings: RougeSettings) -> Needs:
        """Need nothing but a CPU, and the package.

        Raises:
            ValueError: It is not installed.
        """
        del settings
        if find_spec("rouge_score") is None:
            raise ValueError("rouge-score is not installed: `pip install 'dosimeter[rouge]'`")
        return Needs()

    def objection(self, settings: RougeSettings, prompts: Sequence[Prompt]) -> str | None:
        """Ask for references with every prompt, and for such as have words."""
        del settings
        return objection(prompts, _refusal)

    def forecast(self, settings: RougeSettings, pairs: Pairs) -> Range:
        """Take milliseconds for each response."""
        del settings
        taken = Usage(device_seconds=0.2 + pairs.items * SECONDS)
        return Range(taken, taken, taken)

    def judge(
        self, settings: RougeSettings, prompts: Sequence[Prompt], responses: Sequence[Response], context: Context
    ) -> Judged:
        """Compare every response with the references of its prompt."""
        del context
        from rouge_score.rouge_scorer import RougeScorer

        scorer = RougeScorer([settings.score], use_stemmer=settings.stem)
        verdicts = [
            _verdict(scorer, settings.score, prompt, response.text)
            for prompt, response in zip(prompts, responses, strict=True)
        ]
        return Judged(verdicts, Usage())


def _verdict(scorer: Any, name: str, prompt: Prompt, text: str) -> Verdict:
    if (words := _words(text)) > LONGEST_RESPONSE:
        why = f"the response has {words:,} words, and ROUGE is counted for {LONGEST_RESPONSE:,} at most"
        return Verdict(Outcome.ERRORED, None, why)
    return graded(prompt, _refusal, lambda usable: float(scorer.score_multi(usable, text)[name].fmeasure))


def _refusal(reference: str) -> str:
    words, shown = _words(reference), reference[:40]
    if not words:
        return f"the reference `{shown}` has no letter from a to z and no digit, and ROUGE sees nothing else"
    if words > LONGEST_REFERENCE:
        return f"the reference `{shown}` has {words:,} words, and ROUGE is counted for {LONGEST_REFERENCE:,} at most"
    return ""


def _words(text: str) -> int:
    """Return how many words of a text ROUGE sees."""
    from rouge_score.tokenize import tokenize

    return len(tokenize(text, None))
