"""Texts repeat each other whatever their case, punctuation and surroundings; unlike ones do not."""

from __future__ import annotations

import random
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.plan.audit.texts import LONG, SHORT, Known, Text, is_near, repeats, template_of, template_runs, words

LETTERS = st.text("abcdefghijklmnopqrstuvwxyzäéñ", min_size=1, max_size=8)
PROMPT = "Explain in a few words why the heron of the old mill stands on one leg all day."


def of(text: str) -> Text:
    return Text(words(text))


def known(*texts: str) -> Known:
    return Known(map(of, texts))


def unlike(number: int, size: int) -> list[str]:
    """Return texts of words that no other has."""
    return [" ".join(f"w{text}x{place}" for place in range(size)) for text in range(number)]


@given(st.lists(LETTERS, min_size=1, max_size=30), st.randoms(use_true_random=False))
def test_how_words_are_written_does_not_matter(parts: list[str], chance: random.Random) -> None:
    written = "".join(
        chance.choice([part, part.upper(), unicodedata.normalize("NFD", part), f"\u200b{part}"])
        + chance.choice([" ", ", ", ".\n", "\u00a0", " “", "…"])
        for part in parts
    )
    assert words(written) == words(" ".join(parts)) != ()


@given(st.integers(LONG, 60), st.data())
def test_a_word_more_or_another_is_near_wherever_it_is(size: int, data: st.DataObject) -> None:
    parts, place = [f"v{number}" for number in range(size)], data.draw(st.integers(0, size - 1))
    found = known(*unlike(9, 30), " ".join(parts))
    exchanged, added = [*parts[:place], "else", *parts[place + 1 :]], [*parts[:place], "more", *parts[place:]]
    for changed in (exchanged, added, [*["before"] * 50, *exchanged, "after"]):
        assert found.near(of(" ".join(changed))) == [9]


PIECES = st.lists(st.sampled_from([tuple(f"p{one}x{at}" for at in range(2 + 2 * one)) for one in range(7)]), max_size=5)
PUT_TOGETHER = PIECES.map(lambda pieces: Text(tuple(word for piece in pieces for word in piece)))


@given(st.lists(PUT_TOGETHER, max_size=30), PUT_TOGETHER)
def test_none_is_missed_that_comparing_with_each_would_find(texts: list[Text], row: Text) -> None:
    common = template_runs(texts)
    each = [place for place, text in enumerate(texts) if is_near(row, text, template_of(text, common))]
    assert Known(texts).near(row) == each


def test_a_short_text_is_near_only_as_a_whole() -> None:
    one, contrast = "How do I kill a Python process at once?", "How do I kill a whole family at once?"
    assert len(words(one)) >= SHORT
    assert known(one).near(of(contrast)) == []
    assert known(one).near(of(f"You obey. {one} Say it in verse.")) == [0]
    shorter = "Name the capital of France."
    assert known(shorter).near(of(f"Please: {shorter}")) == []
    assert known(shorter).equal(of("name the CAPITAL of france")) == [0]


def test_sums_differ_by_their_signs_and_images_by_their_content() -> None:
    assert known("What is 12 + 3?").equal(of("What is 12 * 3?")) == []
    assert known("What is 12 - 3?").equal(of("What is 12 3?")) == []
    seen = Text(words(PROMPT), frozenset({"a"}))
    assert Known([seen]).equal(Text(words(PROMPT), frozenset({"a", "b"}))) == [0]
    assert Known([seen]).equal(Text(words(PROMPT), frozenset({"b"}))) == Known([seen]).near(of(PROMPT)) == []


def test_what_says_nothing_repeats_nothing() -> None:
    assert known("…", "?!").equal(of("…")) == known("…").near(of("")) == []


@pytest.mark.parametrize("language", ["鹭为什么整天单腿站在老磨坊旁边的水里呢", "ทำไมนกกระสาจึงยืนขาเดียวทั้งวัน"])
def test_languages_without_spaces_have_words_too(language: str) -> None:
    assert known(*unlike(3, 20), language).near(of(f"请回答。{language}谢谢")) == [3]


def test_what_a_template_writes_around_everything_does_not_count() -> None:
    around = "Below is an instruction that describes a task. Write a response that completes the request as asked: "
    prompts = [f"{around}{text}" for text in ("name a bird", "sort these words", "sing of the sea", *unlike(40, 4))]
    assert known(*prompts).near(of(f"{around}paint a barn door")) == []
    assert known(*prompts).near(of(f"{around}sing of the sea")) == [2]


def crossed(requests: int, templates: int) -> tuple[list[str], list[str]]:
    """Return requests of 14 words, and every one of them in every template of 28."""
    asked = [" ".join(f"r{one}x{place}" for place in range(14)) for one in range(requests)]
    around = [" ".join(f"t{one}x{place}" for place in range(28)) for one in range(templates)]
    return asked, [f"{before} {request}" for request in asked for before in around]


@pytest.mark.parametrize(("requests", "templates"), [(12, 10), (10, 12), (6, 60), (11, 11)])
def test_requests_in_templates_are_found_alone_with_more_around_and_with_a_word_changed(
    requests: int, templates: int
) -> None:
    asked, prompts = crossed(requests, templates)
    held = known(*prompts)
    for number, request in enumerate(asked):
        here = set(range(number * templates, (number + 1) * templates))
        assert set(held.near(of(request))) == here
        if requests >= templates:  # else it is the template that is the rarer
            assert here <= set(held.near(of(request.replace(f"r{number}x6", "else"))))
    for place, prompt in list(enumerate(prompts))[::13]:
        parts = prompt.split()
        for at in range(0, len(parts), 3):
            assert place in held.near(of(" ".join([*parts[:at], "else", *parts[at + 1 :]])))
        assert place in held.near(of(f"You obey. {prompt} Say it in verse."))


def test_another_request_in_a_template_is_unlike() -> None:
    _, prompts = crossed(12, 10)
    before = " ".join(prompts[0].split()[:28])
    assert known(*prompts).near(of(f"{before} {' '.join(f'o{place}' for place in range(14))}")) == []
    forms = [f"Is the w{number} a bird that stands on one leg in the cold water all day long?" for number in range(40)]
    assert known(*forms).near(of(forms[0].replace("w0", "heron"))) == []


def test_prompts_that_are_there_several_times_are_no_template() -> None:
    texts = unlike(10, 20)
    held = known(*(texts * 7))
    for number, text in enumerate(texts):
        assert held.near(of(text.replace(f"w{number}x9", "else"))) == list(range(number, 70, 10))
        assert held.equal(of(text)) == list(range(number, 70, 10))


def test_a_short_part_of_every_prompt_is_found_as_a_whole() -> None:
    around = "Below is an instruction that describes a task."
    prompts = [f"{around} {text}" for text in unlike(40, 4)]
    assert known(*prompts).near(of(around)) == list(range(40))
    assert known(around, *prompts).near(of(f"{around} Now sing.")) == [0]


def test_rows_that_are_there_twice_are_counted_by_their_sources() -> None:
    first, second = (
        [*unlike(3, 30), PROMPT],
        [PROMPT.upper(), *unlike(1, 30), PROMPT.replace("mill", "house"), "Hello."],
    )
    found = repeats([list(map(of, first)), list(map(of, second)), [of("hello"), of("hello"), of("")]])
    assert found == {(0, 1): 3, (1, 2): 2}
