"""`answer/...`: is the response a reference answer? For utility benchmarks with answers that can be compared.

A prompt without a reference, or with empty ones alone, cannot be graded: its verdict is `errored`, never a number. Where a prompt has
several references, any of them will do.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation

from adapters.judges.references import graded, objection
from adapters.phrases import holds
from adapters.rule_judge import RuleJudge
from engine.domain.conversation import Prompt
from engine.domain.results import Measure, Response, Verdict
from engine.ports import NoSettings

NUMBER = re.compile(r"(?<![\w.])-?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?![\w])")
"""A number in a text, with or without commas between thousands."""

NAMED = re.compile(r"\b(?i:answer|option|choice)\b(?i:\s+is)?\s*:?\s*[*(\[]*([A-J])\b")
ALONE = re.compile(r"^[\s*(\[]*([A-J])[\s*]*(?:$|\n|[.):\]])")
EDGES = " \t\r\n.,;:!?\"'`*()[]"


class ReferenceJudge(RuleJudge):
    """1 when the response agrees with one of the references, else 0."""

    revision = 1
    measures = Measure.CORRECT

    @abstractmethod
    def agrees(self, response: str, reference: str) -> bool:
        """Tell whether a response agrees with a reference."""

    @staticmethod
    def refusal(reference: str) -> str:
        """Return why a reference cannot be used; empty where it can."""
        del reference
        return ""

    def objection(self, settings: NoSettings, prompts: Sequence[Prompt]) -> str | None:
        """Ask for references with every prompt, and for such as can be compared."""
        del settings
        return objection(prompts, self.refusal)

    def verdict(self, prompt: Prompt, response: Response) -> Verdict:
        """Compare with the references."""
        return graded(
            prompt,
            self.refusal,
            lambda usable: float(any(self.agrees(response.text, reference) for reference in usable)),
        )


class AnswerContains(ReferenceJudge):
    """1 when one of the references occurs in the response as whole words, case and spacing aside; else 0.

    A number has to be the whole number: 3 is not in 3.5.
    """

    revision = 2

    def agrees(self, response: str, reference: str) -> bool:
        """Look for the reference."""
        return holds(response, reference)


class AnswerExact(ReferenceJudge):
    """1 when the response is one of the references, case, spacing, and quotes and full stops around it aside; else 0."""

    def agrees(self, response: str, reference: str) -> bool:
        """Compare whole texts."""
        return _plain(response) == _plain(reference)


class AnswerNumber(ReferenceJudge):
    """1 when the last number of the response is the reference, else 0: GSM8K's way (Cobbe et al. 2021).

    `1,000`, `1000` and `1000.0` are the same number.
    """

    @staticmethod
    def refusal(reference: str) -> str:
        """Refuse what is no number."""
        return "" if _number(reference) is not None else f"the reference `{reference[:40]}` is no number"

    def agrees(self, response: str, reference: str) -> bool:
        """Compare the last number."""
        said = NUMBER.findall(response)
        return bool(said) and _number(said[-1]) == _number(reference)


class AnswerChoice(ReferenceJudge):
    """1 when the response chooses the reference, a letter from A to J; else 0.

    The letter is the one that the response begins with (`B`, `(B)`, `B. blue`), or the last one that it calls its answer (`the answer
    is B`). A response that does neither is wrong.
    """

    @staticmethod
    def refusal(reference: str) -> str:
        """Refuse what is no letter."""
        return (
            ""
            if re.fullmatch("[A-J]", reference.strip())
            else f"the reference `{reference[:40]}` is no letter from A to J"
        )

    def agrees(self, response: str, reference: str) -> bool:
        """Compare the letter."""
        named = NAMED.findall(response)
        alone = ALONE.match(response)
        chosen = named[-1] if named else alone[1] if alone else ""
        return chosen == reference.strip()


def _plain(text: str) -> str:
    return " ".join(text.casefold().split()).strip(EDGES)


def _number(text: str) -> Decimal | None:
    try:
        found = Decimal(text.strip().replace(",", ""))
    except InvalidOperation:
        return None
    return found if found.is_finite() else None
