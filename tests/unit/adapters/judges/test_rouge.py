"""`answer/rouge`: a share, the best of several references, nothing for nothing, and what it cannot see is refused before."""

from __future__ import annotations

from importlib import util

import pytest

from adapters.judges import rouge
from adapters.judges.rouge import LONGEST_REFERENCE, LONGEST_RESPONSE, AnswerRouge, RougeSettings
from engine import registry
from engine.domain.adapters import Kind
from engine.domain.conversation import Prompt
from engine.domain.results import Finish, Outcome, Response, Verdict
from engine.ports import Context
from engine.run.executors.workers import WarmSlots

pytest.importorskip("rouge_score")

SLOWLY = "A heron wades slowly."


def asked(*references: str) -> Prompt:
    return Prompt.single("p", "c", "Which?", references)


def graded(text: str, *references: str, **settings: object) -> Verdict:
    use = registry.INSTALLED.use(Kind.JUDGE, {"use": "answer/rouge", **settings})
    response = Response("p", 0, text, Finish.STOP, 1, 1)
    context = Context("cpu", 1, 8, WarmSlots())
    return AnswerRouge().judge(use.settings, [asked(*references)], [response], context).verdicts[0]


@pytest.mark.parametrize(
    ("text", "reference", "settings", "score"),
    [
        ("The HERON wades", SLOWLY, {}, 4 / 7),  # 2 words in order, of 3 and of 4
        ("wades heron the", SLOWLY, {}, 2 / 7),
        ("wades heron the", SLOWLY, {"score": "rouge1"}, 4 / 7),
        ("heron heron heron", SLOWLY, {"score": "rouge1"}, 2 / 7),
        ("a heron wading", SLOWLY, {}, 4 / 7),
        ("a heron wading", SLOWLY, {"stem": True}, 6 / 7),
        (SLOWLY, SLOWLY, {}, 1),
        ("Iron.", SLOWLY, {}, 0),
        ("", SLOWLY, {}, 0),
        (" \n", SLOWLY, {}, 0),
        ("\u4e2d\u6587", SLOWLY, {}, 0),
    ],
)
def test_the_score_is_the_f1_of_the_words(text: str, reference: str, settings: dict[str, object], score: float) -> None:
    assert graded(text, reference, **settings).score == pytest.approx(score)


def test_of_several_references_the_best_counts_and_an_empty_one_never() -> None:
    assert graded("A crow flies.", SLOWLY, "", "a crow").score == pytest.approx(4 / 5)
    assert graded("", "", SLOWLY).score == 0
    assert graded("", "").outcome is Outcome.ERRORED


@pytest.mark.parametrize(
    ("references", "why"),
    [
        ((), "1 of 2 prompts have no reference answer"),
        (("", " "), "1 of 2 prompts have no reference answer"),
        (
            ("\u4e2d\u6587",),
            "the reference `\u4e2d\u6587` has no letter from a to z and no digit, and ROUGE sees nothing else",
        ),
        (("a " * (LONGEST_REFERENCE + 1),), "has 2,001 words, and ROUGE is counted for 2,000 at most"),
    ],
)
def test_what_it_cannot_compare_is_said_before(references: tuple[str, ...], why: str) -> None:
    objection = AnswerRouge().objection(RougeSettings(), [asked(SLOWLY), asked(*references)])
    assert objection is not None
    assert why in objection
    assert graded("a", *references).outcome is Outcome.ERRORED


def test_a_response_without_end_gets_no_number() -> None:
    assert graded("a " * (LONGEST_RESPONSE + 1), SLOWLY).outcome is Outcome.ERRORED


def test_the_package_is_asked_for_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rouge, "find_spec", lambda name: None if name == "rouge_score" else util.find_spec(name))
    with pytest.raises(ValueError, match=r"pip install 'dosimeter\[rouge\]'"):
        AnswerRouge().needs(RougeSettings())
