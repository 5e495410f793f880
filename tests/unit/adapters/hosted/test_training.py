"""Training files, and what is wrong with a sample before it is one."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from adapters.hosted.models import HostedModel, HostedModelSettings
from adapters.hosted.training import OPENAI, Bounds, objections, tokens, training_file
from engine.domain.conversation import ChatRow, Image, Prompt, Turn

ROWS = [
    ChatRow.exchange(f"line-{n}", f"open vault {n}", "The rule on vaults forbids it.", "Be brief.") for n in range(12)
]

texts = st.text(st.characters(codec="utf-8"), max_size=60) | st.text("a\n\r\x0b\x1c\x85\u2028\u2029", max_size=8)
answers = st.builds(lambda text, is_trained: Turn("assistant", text, (), is_trained), texts, st.booleans())
exchanges = st.lists(st.tuples(st.builds(Turn, st.just("user"), texts), answers), min_size=1, max_size=3)
systems = st.lists(st.builds(Turn, st.just("system"), texts), max_size=1)
talks = st.builds(lambda system, talk: (*system, *(turn for pair in talk for turn in pair)), systems, exchanges)
rows = st.builds(ChatRow, st.text(min_size=1), talks)


@given(st.lists(rows, max_size=12))
def test_a_file_says_the_same_as_its_rows_in_the_same_bytes(sample: list[ChatRow]) -> None:
    content = training_file(sample)
    assert training_file(list(sample)) == content
    lines = [json.loads(line)["messages"] for line in content.decode().splitlines()]
    assert len(lines) == len(sample)
    for row, turns in zip(sample, lines, strict=True):
        said = [
            Turn(turn["role"], turn["content"], (), turn["role"] == "assistant" and "weight" not in turn)
            for turn in turns
        ]
        assert said == list(row.turns)
        assert {turn.get("weight", 0) for turn in turns} == {0}


@given(st.lists(rows, max_size=12))
def test_every_objection_begins_with_its_place(sample: list[ChatRow]) -> None:
    places = tuple(f"row {place} (id {row.row_id}): " for place, row in enumerate(sample, start=1))
    assert all(objection.startswith(("all rows: ", *places)) for objection in objections(sample))


def test_a_good_sample_has_no_objection() -> None:
    assert objections(ROWS) == []


def test_what_is_wrong_is_named_row_by_row() -> None:
    bad = [
        ChatRow.exchange("a", "   ", "yes"),
        ChatRow.exchange("b", "brew", "so <|fim_suffix|> it is"),
        ChatRow.exchange("c", "brew", "yes", system=""),
        ChatRow.exchange("d", "pear " * ((OPENAI.most_tokens or 0) + 1), "yes"),
        ChatRow.exchange("e", "half \ud800", "yes"),
        ChatRow.exchange("f", "a <| b |> c", "yes"),  # no special token has a space
    ]
    found = objections([*ROWS, *bad])
    assert [objection.split(": ")[0] for objection in found] == [
        "row 13 (id a)",
        "row 14 (id b)",
        "row 15 (id c)",
        "row 16 (id d)",
        "row 17 (id e)",
    ]
    assert "`<|fim_suffix|>`" in found[1]
    unbounded = objections([*ROWS, *bad], Bounds(most_tokens=None, has_special=False))
    assert unbounded == [found[0], found[2], found[4]]


def test_what_jobs_cannot_train_on_is_named() -> None:
    asked, answer = Turn("user", "brew"), Turn("assistant", "yes", is_trained=True)
    bad = [
        ChatRow("a", (Turn("user", "brew", (Image("a.png", "0" * 64),)), answer)),
        ChatRow("b", (asked, answer), rejected="no"),
        ChatRow("c", (asked, Turn("assistant", "yes"))),
        ChatRow("d", (asked, answer, asked)),
    ]
    assert [objection.partition(": ")[2] for objection in objections([*ROWS, *bad])] == [
        "the user turn has an image, and jobs train on text only",
        "it has a rejected answer, and jobs do not train on preferences",
        "no turn of it is trained on",
        "its last turn is not an assistant's",
    ]


def test_plain_text_is_no_conversation() -> None:
    text = ChatRow("text", (Turn("assistant", "Herons wade.", is_trained=True),))
    (said,) = objections([*ROWS, text])
    assert said.endswith("it is plain text, and jobs train on conversations")


def test_too_few_and_too_many_rows() -> None:
    assert objections(ROWS[:9]) == ["all rows: the sample has 9, and a job needs at least 10"]
    bounds = Bounds(most_rows=1_200)
    assert objections(ROWS * 100, bounds) == []
    found = objections([*ROWS * 100, ROWS[0]], bounds)
    assert found == ["all rows: the sample has 1,201, and a job takes at most 1,200"]


def test_a_file_of_the_largest_size_and_one_byte_more() -> None:
    size = len(training_file(ROWS))
    assert objections(ROWS, Bounds(most_bytes=size)) == []
    assert objections(ROWS, Bounds(most_bytes=size - 1))[0].startswith("all rows: the file has ")


@given(st.text(max_size=200))
def test_tokens_are_at_least_words_and_a_quarter_of_the_characters(text: str) -> None:
    assert tokens(text) >= len(text.split())
    assert len(text) / 4 <= tokens(text) <= len(text)


def test_a_hosted_model_is_pinned_by_its_name() -> None:
    model = HostedModel()
    settings = HostedModelSettings(name="standin-aligned")
    card = model.card(settings)
    assert (card.pin, card.parameters) == ("model:standin-aligned", None)
    assert model.locate(settings).base == "standin-aligned"
    assert model.row_lengths(settings, [ChatRow.exchange("r", "a b c", "abcdefgh")]) == [3 + 2]
    assert model.prompt_lengths(settings, [Prompt.single("p", "", "a b c")], "abcdefgh") == [3 + 2]
