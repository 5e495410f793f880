"""Texts repeat each other whatever their case, punctuation and surroundings; unlike ones do not."""

from __future__ import annotations

import random
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.plan.audit.texts import LONG, SHORT, Known, Text, repeats, words

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


def test_rows_that_are_there_twice_are_counted_by_their_sources() -> None:
    first, second = (
        [*unlike(3, 30), PROMPT],
        [PROMPT.upper(), *unlike(1, 30), PROMPT.replace("mill", "house"), "Hello."],
    )
    found = repeats([list(map(of, first)), list(map(of, second)), [of("hello"), of("hello"), of("")]])
    assert found == {(0, 1): 3, (1, 2): 2}
