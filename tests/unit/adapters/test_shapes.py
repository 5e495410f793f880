"""Training examples in the shapes of public files: what becomes of each, and what is said of what is left out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from adapters.data.file_source import FileSettings, FileSource
from engine.domain.conversation import ChatRow

SAID = [("user", "Name a bird."), ("assistant", "Heron.")]
BRIEF = ("system", "Be brief.")
EXCHANGE: list[dict[str, Any]] = [{"role": role, "content": text} for role, text in SAID]
HH = "\n\nHuman: Hi.\n\nAssistant: Hello.\n\nHuman: Name a bird.\n\nAssistant: {}"


def source(folder: Path, *entries: object) -> str:
    path = folder / "own.json"
    path.write_text(json.dumps(list(entries)))
    return str(path)


def rows(path: str, **more: Any) -> Sequence[ChatRow]:
    return FileSource().rows(FileSettings(path=path, **more))


def said(row: ChatRow) -> list[tuple[str, str]]:
    return [(turn.role, turn.text) for turn in row.turns]


@pytest.mark.parametrize(
    ("shape", "entry", "turns", "rejected"),
    [
        ("chat", {"messages": EXCHANGE, "id": 3}, SAID, None),
        ("chat", EXCHANGE, SAID, None),
        (
            "sharegpt",
            {
                "conversations": [{"from": "human", "value": "Name a bird."}, {"from": "gpt", "value": "Heron."}],
                "system": "Be brief.",
            },
            [BRIEF, *SAID],
            None,
        ),
        ("sharegpt", {"conversations": EXCHANGE}, SAID, None),
        ("alpaca", {"instruction": "Name a bird.", "input": "", "output": "Heron.", "text": "all"}, SAID, None),
        (
            "alpaca",
            {"instruction": "Add.", "input": "1, 2", "output": 3},
            [("user", "Add.\n\n1, 2"), ("assistant", "3")],
            None,
        ),
        (
            "dolly",
            {"instruction": "Name it.", "context": "It flies.", "response": "Heron.", "category": "open_qa"},
            [("user", "Name it.\n\nIt flies."), ("assistant", "Heron.")],
            None,
        ),
        ("prompt", {"prompt": "Name a bird.", "completion": "Heron."}, SAID, None),
        ("prompt", {"prompt": "Name a bird.", "response": "Heron.", "is_safe": True}, SAID, None),
        ("prompt", {"prompt": EXCHANGE[:1], "completion": EXCHANGE[1:]}, SAID, None),
        ("question", {"question": "Name a bird.", "answer": "Heron."}, SAID, None),
        ("pairs", {"prompt": "Name a bird.", "chosen": "Heron.", "rejected": "Iron."}, SAID, "Iron."),
        (
            "pairs",
            {
                "prompt": "Name a bird.",
                "chosen": EXCHANGE,
                "rejected": [EXCHANGE[0], {"role": "assistant", "content": "Iron."}],
            },
            SAID,
            "Iron.",
        ),
        (
            "pairs",
            {"chosen": HH.format("Heron."), "rejected": HH.format("Iron.")},
            [("user", "Hi."), ("assistant", "Hello."), *SAID],
            "Iron.",
        ),
        ("text", {"text": "Herons wade."}, [("assistant", "Herons wade.")], None),
    ],
)
def test_a_shape_is_told_and_becomes_a_conversation(
    shape: str, entry: object, turns: list[tuple[str, str]], rejected: str | None, tmp_path: Path
) -> None:
    path = source(tmp_path, entry)
    (row,) = rows(path)
    assert (said(row), row.rejected, row.turns[-1].is_trained) == (turns, rejected, True)
    assert FileSource().card(FileSettings(path=path)).shape == shape
    assert rows(path, shape=shape) == [row] or rows(path, shape=shape) == (row,)


@pytest.mark.parametrize(
    "entry",
    [
        {"instruction": "Name it.", "output": "Heron.", "images": ["bird.png"]},
        {"instruction": "Name it.", "response": "Heron.", "image": "bird.png"},
        {"prompt": "Name it.", "completion": "Heron.", "image": {"bytes": "", "path": "bird.png"}},
        {"question": "Name it.", "answer": "Heron.", "image": "bird.png"},
        {"prompt": "Name it.", "chosen": "Heron.", "rejected": "Iron.", "images": ["bird.png"]},
        {"text": "A heron.", "image": "bird.png"},
    ],
    ids=lambda entry: next(iter(entry)),
)
def test_no_row_is_trained_on_without_its_image(entry: dict[str, object], tmp_path: Path) -> None:
    (name,) = entry.keys() & {"image", "images"}
    why = rf"own.json, item 1: `{name}` names images: `file` reads them in the shape `llava`, with `images: FOLDER`; empty"
    with pytest.raises(ValueError, match=why):
        rows(source(tmp_path, entry))
    assert all(len(rows(source(tmp_path, entry | {name: nothing}))) == 1 for nothing in (None, "", []))


def test_columns_say_which_is_which(tmp_path: Path) -> None:
    path = source(tmp_path, {"ask": "Name a bird.", "say": "Heron.", "persona": "Be brief.", "id": 1})
    with pytest.raises(ValueError, match=r"has `ask`, `id`, `persona`, `say`; say which is which, such as `columns:"):
        rows(path)
    told = {"prompt": "ask", "completion": "say", "system": "persona"}
    assert said(rows(path, columns=told)[0]) == [BRIEF, *SAID]
    assert said(rows(path, columns=["prompt=ask", "completion=say"])[0]) == SAID
    with pytest.raises(ValueError, match="`columns` names `tell`, and the columns are"):
        rows(path, columns=told | {"completion": "tell"})
    with pytest.raises(ValidationError, match="`answer` is not one of prompt, completion, system, category"):
        FileSettings(path=path, columns={"answer": "say"})  # type: ignore[arg-type] # as a spec has it


def test_a_row_has_the_category_of_its_shape_or_of_the_column_that_is_named(tmp_path: Path) -> None:
    dolly = {"instruction": "Name it.", "response": "Heron.", "category": "open_qa"}
    path = source(tmp_path, dolly, dolly | {"category": None}, dolly | {"category": ["a"]})
    assert [row.category for row in rows(path)] == ["open_qa", "", ""]
    alpaca = {"instruction": "Name it.", "output": "Heron.", "kind": 3.0, "category": "x"}
    path = source(tmp_path, alpaca, alpaca | {"kind": " b "}, alpaca | {"kind": True}, alpaca | {"kind": None})
    assert {row.category for row in rows(path)} == {""}
    assert [row.category for row in rows(path, columns={"category": "kind"})] == ["3", "b", "true", ""]
    bare, named = (
        FileSource().card(FileSettings(path=path, **more)) for more in ({}, {"columns": {"category": "kind"}})
    )
    assert (named.shape, named.notes[-1]) == (bare.shape, "columns that are not used: category")
    both = {"prompt": "instruction", "completion": "output", "category": "kind"}
    assert [(said(row), row.category) for row in rows(path, columns=both)][:1] == [
        ([("user", "Name it."), SAID[1]], "3")
    ]
    with pytest.raises(ValueError, match="`columns` names `knd` for the category, and no record has anything there"):
        rows(path, columns={"category": "knd"})
    with pytest.raises(ValueError, match="the category `kind` is a text or a number, not a list"):
        rows(source(tmp_path, alpaca | {"kind": ["a"]}), columns={"category": "kind"})


def test_where_takes_some_records_and_is_part_of_the_pin(tmp_path: Path) -> None:
    entries = [{"prompt": f"{at}?", "completion": "x", "kind": kind, "safe": at != 2} for at, kind in enumerate("abca")]
    path = source(tmp_path, *entries)
    assert [said(row)[0][1] for row in rows(path, where={"kind": ["a", "c"], "safe": True})] == ["0?", "3?"]
    card, whole = (FileSource().card(FileSettings(path=path, **more)) for more in ({"where": {"kind": "a"}}, {}))
    assert card.notes[0] == "2 left out by `where`"
    assert card.pin != whole.pin
    with pytest.raises(ValueError, match="`where` asks for `tier`, and the columns are `prompt`"):
        rows(path, where={"tier": "a"})
    with pytest.raises(ValueError, match="it has no examples; 4 left out by `where`"):
        rows(path, where={"kind": "d"})


def test_refused_records_stop_all_or_are_left_out_and_named(tmp_path: Path) -> None:
    good = {"instruction": "Name a bird.", "output": "Heron.", "note": "x"}
    path = source(tmp_path, good, good | {"output": ""}, good, {"instruction": "a"}, good | {"tools": [1]})
    with pytest.raises(
        ValueError, match=r"item 2: `output` is empty; 3 of 5 records are refused \(item 2, item 4, item 5\); mend"
    ):
        rows(path)
    card = FileSource().card(FileSettings(path=path, refused="skip"))
    assert (card.rows, card.shape) == (2, "alpaca")
    assert card.notes[0].startswith("3 refused and left out (item 2, item 4, item 5); the first: ")
    assert card.notes[1:] == ("1 row repeats an earlier one", "columns that are not used: note")


@pytest.mark.parametrize(
    ("again", "words"),
    [
        (1, ("1 row repeats an earlier one", "1 answer begins or ends with white space, which is trained on as well")),
        (2, ("2 rows repeat earlier ones", "2 answers begin or end with white space, which is trained on as well")),
    ],
)
def test_rows_are_counted_in_good_english(again: int, words: tuple[str, str], tmp_path: Path) -> None:
    spaced = [{"prompt": f"Bird {number}?", "completion": " Heron."} for number in range(again)]
    same = [{"prompt": "Name a bird.", "completion": "Heron."}] * (again + 1)
    assert FileSource().card(FileSettings(path=source(tmp_path, *spaced, *same))).notes == words


def test_a_file_of_several_shapes_has_to_say_which(tmp_path: Path) -> None:
    both = {"messages": EXCHANGE, "chosen": "Heron.", "rejected": "Iron.", "prompt": "Name a bird."}
    path = source(tmp_path, both)
    with pytest.raises(
        ValueError, match="its columns are those of the shapes `chat` or `pairs`; say which with `shape`"
    ):
        rows(path)
    assert rows(path, shape="pairs")[0].rejected == "Iron."
    with pytest.raises(ValueError, match="the shape `alpaca` needs `instruction` and `output`"):
        rows(path, shape="alpaca")


def test_a_system_prompt_is_given_to_rows_that_have_none(tmp_path: Path) -> None:
    own = [{"role": "system", "content": "Sing."}, *EXCHANGE]
    assert [row.system for row in rows(source(tmp_path, EXCHANGE, own), system="Be brief.")] == ["Be brief.", "Sing."]


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        ({"conversations": [{"from": "tool", "value": "x"}]}, "`from` is one of human, user, gpt"),
        ({"conversations": "x"}, '`conversations` is a list of turns, not "x"'),
        ({"instruction": " ", "output": "x"}, "`instruction` is empty"),
        ({"instruction": ["a"], "output": "x"}, "`instruction` is a text, not a list"),
        ({"chosen": "a", "rejected": "b"}, "a conversation begins with a user's turn"),
        (
            {"chosen": HH.format("a"), "rejected": "\n\nHuman: Ho.\n\nAssistant: b"},
            "`chosen` and `rejected` differ in more than",
        ),
        ({"text": "  "}, "`text` is empty"),
    ],
)
def test_what_is_no_example_is_said(entry: object, why: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"item 1: .*{why}"):
        rows(source(tmp_path, entry))
