"""`answer/...`: whole words, numbers, letters, any of several references, and none that an empty one satisfies."""

from __future__ import annotations

import pytest

from adapters.judges.answer import AnswerChoice, AnswerContains, AnswerExact, AnswerNumber, ReferenceJudge
from engine.domain.conversation import Prompt
from engine.domain.results import Finish, Outcome, Response, Verdict
from engine.ports import NoSettings


def graded(text: str, *references: str, judge: type[ReferenceJudge] = AnswerContains) -> Verdict:
    prompt = Prompt.single("p", "c", "Which?", references)
    response = Response("p", 0, text, Finish.STOP, 1, 1)
    return judge().verdict(prompt, response)


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("It is IRON.", "iron"),
        ("a  heron\nand a crow", "Heron and a crow"),
        ("x = 3.", "3"),
        ("x = 3, y = 4", "3"),
        ("(3)", "3"),
        ("3%", "3"),
        ("it is -3", "-3"),
        ("10-3 = 7", "3"),
        ("3.5 it is", "3.5"),
        ("$3", "3"),
        ("saw.", "saw."),
    ],
)
def test_a_reference_is_found(text: str, reference: str) -> None:
    assert graded(text, reference) == Verdict(Outcome.SCORED, 1.0)


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("ironic", "iron"),
        ("x = 3.5", "3"),
        ("x = 1.3", "3"),
        ("13", "3"),
        ("3,000", "3"),
        ("1,003", "003"),
        ("3/4", "3"),
        ("3/4", "4"),
        ("it is -3", "3"),
        ("it is \u22123", "3"),
        ("3.50", "3.5"),
        ("3e5", "3"),
    ],
)
def test_a_part_of_a_word_or_a_number_is_not_the_reference(text: str, reference: str) -> None:
    assert graded(text, reference) == Verdict(Outcome.SCORED, 0.0)


def test_any_of_several_references_is_right() -> None:
    assert graded("A crow.", "heron", "crow").score == 1.0
    assert graded("A swan.", "heron", "crow").score == 0.0


@pytest.mark.parametrize("references", [(), ("",), (" ", "\n")])
def test_without_a_reference_there_is_no_number(references: tuple[str, ...]) -> None:
    assert graded("Anything.", *references).outcome is Outcome.ERRORED
    prompts = [Prompt.single("p", "c", "Which?", references), Prompt.single("q", "c", "Which?", ("crow", ""))]
    assert AnswerContains().objection(NoSettings(), prompts) == "1 of 2 prompts have no reference answer"


def test_an_empty_reference_beside_another_satisfies_nothing() -> None:
    assert graded("A swan.", "crow", "").score == 0.0


@pytest.mark.parametrize(
    ("judge", "text", "reference", "score"),
    [
        (AnswerNumber, "5 + 3 is 8, so it is 8.", "8", 1),
        (AnswerNumber, "It is 8. No, 9", "8", 0),
        (AnswerNumber, "#### 1,234.0", "1234", 1),
        (AnswerNumber, "minus: -3", "-3", 1),
        (AnswerNumber, "7-3", "3", 1),
        (AnswerNumber, "none", "8", 0),
        (AnswerNumber, "$8", "8.00", 1),
        (AnswerChoice, "B", "B", 1),
        (AnswerChoice, "(B) heron", "B", 1),
        (AnswerChoice, "**B.** heron", "B", 1),
        (AnswerChoice, "A heron is a bird, so the answer is B.", "B", 1),
        (AnswerChoice, "A heron.", "A", 0),
        (AnswerChoice, "The answer is a heron.", "A", 0),
        (AnswerChoice, "Answer: C, no: the answer is (B)", "B", 1),
        (AnswerExact, " Heron. ", "heron", 1),
        (AnswerExact, "a heron", "heron", 0),
    ],
)
def test_how_an_answer_is_compared(judge: type[ReferenceJudge], text: str, reference: str, score: float) -> None:
    assert graded(text, reference, judge=judge).score == pytest.approx(score)


@pytest.mark.parametrize(("judge", "why"), [(AnswerNumber, "is no number"), (AnswerChoice, "is no letter from A to J")])
def test_a_reference_that_cannot_be_compared_is_found_before(judge: type[ReferenceJudge], why: str) -> None:
    objection = judge().objection(NoSettings(), [Prompt.single("p", "c", "Which?", ("heron",))])
    assert objection == f"the reference `heron` {why}"
