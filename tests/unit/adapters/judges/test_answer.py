"""`answer/contains`: whole words, whole numbers, any of several references, and none that an empty one satisfies."""

from __future__ import annotations

import pytest

from adapters.judges.answer import AnswerContains
from engine.domain.conversation import Prompt
from engine.domain.results import Finish, Outcome, Response, Verdict
from engine.ports import NoSettings


def graded(text: str, *references: str) -> Verdict:
    prompt = Prompt.single("p", "c", "Which?", references)
    response = Response("p", 0, text, Finish.STOP, 1, 1)
    return AnswerContains().verdict(prompt, response)


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
