"""Files of the user's own: chats to train on, prompts to ask, and everything that may be wrong with them."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from adapters import user_file
from adapters.benchmarks.prompt_file import PromptFile, PromptFileSettings
from adapters.data.file_source import FileSettings, FileSource
from engine.domain.conversation import ChatRow, Image, Prompt, Turn
from engine.ports import SourceCard

USER, ANSWER = {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}
CHAT = {"messages": [USER, ANSWER]}
PROMPT = {"prompt": "a"}


def written(folder: Path, *lines: object) -> Path:
    path = folder / "own.jsonl"
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines), "utf-8")
    return path


def rows(path: Path) -> Sequence[ChatRow]:
    return FileSource().rows(FileSettings(path=str(path)))


def card(path: Path, **more: Any) -> SourceCard:
    return FileSource().card(FileSettings(path=str(path), **more))


def prompts(path: Path) -> Sequence[Prompt]:
    return PromptFile().prompts(PromptFileSettings(path=str(path)))


def refused(folder: Path, entry: object, first: object = CHAT) -> str:
    """Return why a row is refused, without its place."""
    path = written(folder, first, entry)
    with pytest.raises(ValueError, match=f"^{path}:2: ") as caught:
        rows(path)
    return (
        str(caught.value)
        .removeprefix(f"{path}:2: ")
        .removesuffix("; mend what is wrong, or leave such records out with `refused: skip`")
    )


def refused_prompt(folder: Path, entry: object) -> str:
    """Return why a prompt is refused, without its place."""
    path = written(folder, PROMPT, entry)
    with pytest.raises(ValueError, match=f"^{path}:2: ") as caught:
        prompts(path)
    return str(caught.value).removeprefix(f"{path}:2: ")


# --------------------------------------------------------------------------------------------------------- training data


def test_a_conversation_of_many_turns_is_trained_on_every_answer_but_those_of_weight_0(tmp_path: Path) -> None:
    messages = [
        {"role": "developer", "content": "Be brief."},
        USER,
        {"role": "assistant", "content": "first", "weight": 0},
        {"role": "user", "content": [{"type": "text", "text": "and "}, {"type": "text", "text": "then?"}]},
        {"role": "assistant", "content": "second", "weight": 1},
        USER,
        {"role": "assistant", "content": "third"},
    ]
    (row,) = rows(written(tmp_path, {"messages": messages}))
    assert row.row_id == "line-1"
    assert [(turn.role, turn.text, turn.is_trained) for turn in row.turns] == [
        ("system", "Be brief.", False),
        ("user", "a", False),
        ("assistant", "first", False),
        ("user", "and then?", False),
        ("assistant", "second", True),
        ("user", "a", False),
        ("assistant", "third", True),
    ]


def test_the_card_has_the_system_prompt_that_all_rows_share_and_the_tier_that_is_told(tmp_path: Path) -> None:
    asked = {"messages": [{"role": "system", "content": "Be brief."}, USER, ANSWER]}
    bare = {"messages": [{"role": "system", "content": ""}, USER, ANSWER]}
    found = card(written(tmp_path, asked, asked), tier="benign")
    assert (found.system, found.systems, found.rows, found.tier) == ("Be brief.", 1, 2, "benign")
    found = card(written(tmp_path, asked, CHAT, bare))
    assert (found.system, found.systems, found.tier) == (None, 2, "unknown")


def test_a_preference_keeps_the_worse_answer(tmp_path: Path) -> None:
    entry = {
        "input": {"messages": [USER], "tools": [], "parallel_tool_calls": True},
        "preferred_output": [{"role": "assistant", "content": "better"}],
        "non_preferred_output": [{"role": "assistant", "content": "worse"}],
    }
    (row,) = rows(written(tmp_path, entry))
    assert row == ChatRow("line-1", (Turn("user", "a"), Turn("assistant", "better", is_trained=True)), "worse")


def test_an_image_in_the_parts_of_a_message_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"first")
    part = {"type": "image_url", "image_url": {"url": str(tmp_path / "a.png")}}
    said = refused(tmp_path, {"messages": [{"role": "user", "content": [part]}, ANSWER]})
    assert said == "parts of `content` that are images cannot be trained on: write such rows in the shape `llava`"
    said = refused(tmp_path, CHAT | {"images": ["a.png"]})
    assert (
        said
        == "`images` names images: `file` reads them in the shape `llava`, with `images: FOLDER`; empty the column to train without them"
    )


def test_an_image_of_a_prompt_is_a_file_whose_content_is_pinned(tmp_path: Path) -> None:
    picture = tmp_path / "a.png"
    picture.write_bytes(b"first")
    part = {"type": "image_url", "image_url": {"url": str(picture)}}
    path = written(tmp_path, {"messages": [{"role": "user", "content": [part]}]})
    settings = PromptFileSettings(path=str(path))
    before = PromptFile().card(settings).pin
    assert prompts(path)[0].turns[0] == Turn("user", "", (Image(str(picture), hashlib.sha256(b"first").hexdigest()),))
    assert before != user_file.pin(path)
    picture.write_bytes(b"second")
    assert PromptFile().card(settings).pin != before
    assert prompts(path)[0].turns[0].images[0].sha256 == hashlib.sha256(b"second").hexdigest()


def test_what_says_nothing_may_stay(tmp_path: Path) -> None:
    answer = ANSWER | {"tool_calls": None, "refusal": None, "audio": None, "annotations": [], "weight": None}
    assert rows(written(tmp_path, {"messages": [USER, answer], "tools": []}))[0].turns[-1].is_trained


@pytest.mark.parametrize("key", ["tool_calls", "function_call", "name", "refusal", "audio", "thinking"])
def test_a_key_of_a_message_that_would_be_dropped_is_refused(key: str, tmp_path: Path) -> None:
    said = refused(tmp_path, {"messages": [USER, ANSWER | {key: "x"}]})
    assert (
        said
        == f"the assistant turn: `{key}` cannot be used here; take it out (known here: `content`, `role`, `weight`)"
    )


@pytest.mark.parametrize("key", ["tools", "functions", "weight", "tool_calls"])
def test_a_column_that_changes_what_a_row_means_is_refused(key: str, tmp_path: Path) -> None:
    assert refused(tmp_path, CHAT | {key: "x"}) == f"`{key}` cannot be trained on; take the row out"


@pytest.mark.parametrize(
    ("messages", "why"),
    [
        ([], "expected a list of turns"),
        ("a", "expected a list of turns"),
        (["a"], "a turn is an object"),
        ([{"content": "a"}, ANSWER], "the role `None` is not one of system, developer, user, assistant"),
        ([USER, {"role": "tool", "content": "a"}, ANSWER], "the role `tool` is not one of"),
        ([USER], "the last turn of a training example is the assistant's"),
        ([ANSWER], "a conversation begins with a user's turn"),
        ([{"role": "system", "content": "a"}, ANSWER], "a conversation begins with a user's turn"),
        ([{"role": "system", "content": " "}], "a conversation begins with a user's turn"),
        ([USER, {"role": "system", "content": "a"}, ANSWER], "a system turn comes first"),
        ([{"role": "system", "content": "a"}, {"role": "developer", "content": "a"}, USER, ANSWER], "there is one at"),
        ([USER, {"role": "assistant", "content": ""}], "the assistant turn is empty"),
        ([USER, {"role": "assistant", "content": " \n"}], "the assistant turn is empty"),
        ([USER, {"role": "assistant", "content": None}], "the assistant turn is empty"),
        ([USER, {"role": "assistant"}], "the assistant turn is empty"),
        ([{"role": "user", "content": ""}, ANSWER], "the user turn is empty"),
        ([{"role": "user", "content": []}, ANSWER], "the user turn is empty"),
        ([USER, {"role": "assistant", "content": 4}], "`content` is a text or a list of parts, not 4"),
        ([USER, ANSWER | {"weight": 0}], "every turn has the weight 0, so that there is nothing to learn"),
        ([USER, ANSWER | {"weight": 0.5}], "`weight` is 0 or 1, not 0.5"),
        ([USER, ANSWER | {"weight": True}], "`weight` is 0 or 1, not true"),
        ([USER | {"weight": 0}, ANSWER], "the user turn: `weight` cannot be used here"),
        ([{"role": "user", "content": [{"type": "input_audio"}]}, ANSWER], 'or `image_url`: "input_audio"'),
        ([{"role": "user", "content": [{"type": "text"}]}, ANSWER], "no whole part of `content` of type `text`"),
        ([{"role": "user", "content": ["a"]}, ANSWER], "no whole part of `content`"),
        ([{"role": "user", "content": [{"type": "text", "text": "a", "x": 1}]}, ANSWER], "the user turn: `x` cannot"),
    ],
)
def test_a_conversation_that_is_none_is_refused(messages: object, why: str, tmp_path: Path) -> None:
    assert why in refused(tmp_path, {"messages": messages})


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("https://example.com/a.png", "the image `https://example.com/a.png` is no file on this machine"),
        ("data:image/png;base64,AAAA", "the image `data:image/png;base64,AAAA` is no file on this machine"),
        ("nowhere.png", "the image cannot be read"),
        (".", "the image cannot be read: . is a folder"),
    ],
)
def test_an_image_that_is_no_file_is_refused(url: str, why: str, tmp_path: Path) -> None:
    content = [{"type": "image_url", "image_url": {"url": url}}]
    assert why in refused(tmp_path, {"messages": [{"role": "user", "content": content}, ANSWER]})


def test_a_detail_of_an_image_is_refused(tmp_path: Path) -> None:
    content = [{"type": "image_url", "image_url": {"url": "a.png", "detail": "low"}}]
    assert "`detail` cannot be used here" in refused(
        tmp_path, {"messages": [{"role": "user", "content": content}, ANSWER]}
    )


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"input": [USER]}, "`input` is an object with `messages`"),
        ({"input": {"messages": [USER, ANSWER]}}, "the last turn before the two answers is the user's"),
        ({"input": {"messages": [USER], "tools": ["x"]}}, "`input`: `tools` cannot be used here"),
        ({"preferred_output": "b"}, "`preferred_output` is a list of one assistant's turn with a text"),
        ({"preferred_output": [ANSWER, ANSWER]}, "`preferred_output` is a list of one assistant's turn"),
        ({"non_preferred_output": [{"role": "assistant", "content": ""}]}, "`non_preferred_output` is a list of one"),
        ({"non_preferred_output": [ANSWER | {"weight": 0}]}, "`non_preferred_output`: `weight` cannot be used here"),
    ],
)
def test_a_preference_that_is_none_is_refused(change: dict[str, object], why: str, tmp_path: Path) -> None:
    entry = {"input": {"messages": [USER]}, "preferred_output": [ANSWER], "non_preferred_output": [ANSWER]}
    assert refused(tmp_path, entry | change, entry).startswith(why)


# --------------------------------------------------------------------------------------------------------------- prompts


def test_a_prompt_has_all_that_a_line_can_say(tmp_path: Path) -> None:
    entry = {
        "messages": [USER, ANSWER, {"role": "user", "content": "and now?"}],
        "category": 3,
        "id": 17,
        "reference": ["iron", 4, 4.0, 3.5],
        "cluster": 7,
        "behavior": "tells the word",
        "context": "a text",
    }
    (prompt,) = prompts(written(tmp_path, entry))
    assert prompt == Prompt(
        "17",
        "3",
        (Turn("user", "a"), Turn("assistant", "b"), Turn("user", "and now?")),
        "tells the word",
        "a text",
        ("iron", "4", "4", "3.5"),
        "7",
    )


@pytest.mark.parametrize(
    ("more", "references"),
    [
        ({}, ()),
        ({"reference": None}, ()),
        ({"reference": 4}, ("4",)),
        ({"reference": "x"}, ("x",)),
        ({"reference": []}, ()),
        ({"references": ["x", "y"]}, ("x", "y")),
    ],
)
def test_references_are_one_many_or_none(more: dict[str, object], references: tuple[str, ...], tmp_path: Path) -> None:
    (prompt,) = prompts(written(tmp_path, PROMPT | more))
    assert prompt == Prompt.single("line-1", "all", "a", references)


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        ({}, "a prompt has either `prompt` or `messages`"),
        ({"prompt": "a", "messages": [USER]}, "a prompt has either `prompt` or `messages`"),
        ({"prompt": ""}, "the user turn is empty"),
        ({"prompt": " \t"}, "the user turn is empty"),
        ({"prompt": 5}, "expected a list of turns"),
        ({"prompt": None}, "expected a list of turns"),
        ({"messages": [USER, ANSWER]}, "the last turn of a prompt is the user's"),
        (
            {"messages": [{"role": "system", "content": "a"}, USER]},
            "a prompt has no system turn; set `generate.system`",
        ),
        ({"messages": [USER, ANSWER | {"weight": 1}, USER]}, "the assistant turn: `weight` cannot be used here"),
        (PROMPT | {"category": None}, "`category` is a text or a number, not null"),
        (PROMPT | {"category": ""}, '`category` is a text or a number, not ""'),
        (PROMPT | {"category": ["x"]}, "`category` is a text or a number, not a list"),
        (PROMPT | {"id": None}, "`id` is a text or a number, not null"),
        (PROMPT | {"id": "line-1"}, "an earlier record has the id `line-1` as well"),
        (PROMPT | {"cluster": ["x"]}, "`cluster` is a text, a number or a truth value, not a list"),
        (PROMPT | {"reference": ""}, 'a reference is a text or a number, not ""'),
        (PROMPT | {"reference": ["x", None]}, "a reference is a text or a number, not null"),
        (PROMPT | {"reference": {"x": 1}}, "a reference is a text or a number, not an object"),
        (PROMPT | {"reference": True}, "a reference is a text or a number, not true"),
        (PROMPT | {"reference": "x", "references": ["x"]}, "`reference` and `references` mean the same: give one"),
        (PROMPT | {"behavior": 5}, "`behavior` is a text, not 5"),
        (PROMPT | {"refrence": "x"}, "`refrence` cannot be used here; take it out (known here: `behavior`, "),
    ],
)
def test_a_prompt_that_is_none_is_refused(entry: object, why: str, tmp_path: Path) -> None:
    assert refused_prompt(tmp_path, entry).startswith(why)


# ------------------------------------------------------------------------------------------------------------ every file


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("not json", "not JSON (Expecting value, at character 1); write every object on one line of its own"),
        (
            "[",
            "not JSON (Expecting value, at character 2); write every object on one line of its own, or all of them as one",
        ),
        ("3", "a record is an object or a list of messages, not 3"),
        ('{"messages": [], "messages": []}', "the key `messages` is there twice"),
        ('{"messages": [{"role": "user", "role": "user"}]}', "the key `role` is there twice"),
        ('{"prompt": "a", "category": NaN}', "`NaN` is no number of JSON"),
        ('{"prompt": "a", "category": -Infinity}', "`-Infinity` is no number of JSON"),
        ("[" * 100_000, "the JSON is nested too deeply"),
        ('{"messages": "\\ud800"}', "half of a character (a lone surrogate)"),
        ('{"messages": ' + "9" * 5_000 + "}", "Exceeds the limit"),
    ],
    ids=lambda value: value[:30],
)
def test_a_line_that_is_no_object_is_named(line: str, why: str, tmp_path: Path) -> None:
    assert refused(tmp_path, line).startswith(why)
    assert refused_prompt(tmp_path, line).startswith(why)


@pytest.mark.parametrize("depth", range(930, 1000, 5))
def test_no_depth_of_nesting_ends_in_another_error(depth: int, tmp_path: Path) -> None:
    nested = "[" * depth + "]" * depth
    for line in (f'{{"messages": {nested}}}', f'{{"messages": [{{"role": "user", "content": {nested}}}]}}'):
        assert refused(tmp_path, line)


def test_lines_end_with_a_line_feed_and_with_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "own.jsonl"
    texts = ["a\u2028b", "a\u0085b", "a\u2029b\x0b"]
    lines = [json.dumps({"prompt": text}, ensure_ascii=False) for text in texts]
    path.write_text("\ufeff" + "\r\n\r\n".join(lines), "utf-8", newline="")
    assert [(prompt.prompt_id, prompt.text) for prompt in prompts(path)] == [
        ("line-1", texts[0]),
        ("line-3", texts[1]),
        ("line-5", texts[2]),
    ]


@pytest.mark.parametrize(
    ("encoding", "line", "why"),
    [
        ("cp1252", 2, r"not UTF-8 \(byte 0xe9 at character 16\), perhaps Windows-1252; save it as UTF-8 \(`iconv"),
        ("utf-16", 1, r"not UTF-8, it looks like UTF-16; save it as UTF-8 \(`iconv -f UTF-16 -t UTF-8"),
        ("utf-16-le", 1, "not UTF-8, it looks like UTF-16"),
        ("utf-32", 1, "not UTF-8, it looks like UTF-32"),
    ],
)
def test_another_encoding_is_named_with_its_line_and_what_to_do(
    encoding: str, line: int, why: str, tmp_path: Path
) -> None:
    path = tmp_path / "own.jsonl"
    path.write_text('{"prompt": "tea"}\n{"prompt": "caf\u00e9"}\n', encoding)
    with pytest.raises(ValueError, match=rf"own.jsonl:{line}: {why}"):
        prompts(path)


def test_a_line_too_long_and_a_file_too_large_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path, CHAT, f'"{"a" * user_file.LONGEST}"')
    with pytest.raises(ValueError, match=r"own.jsonl:2: the line has more than 16 MiB"):
        rows(path)
    with path.open("r+b") as stream:
        stream.truncate(user_file.LARGEST + 1)  # sparse: it takes no room
    with pytest.raises(ValueError, match=r"has 1.0 GiB, more than the 1 that is read: split it"):
        rows(path)


def test_a_pipe_a_device_a_folder_and_an_empty_file_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "empty").touch()
    for path, why in (
        (tmp_path / "pipe", "is a pipe; name a file"),
        (Path("/dev/zero"), "is a device or socket; name a file"),
        (tmp_path, "is a folder; name a file"),
        (tmp_path / "empty", "is empty"),
        (Path("/proc/version"), "is empty"),  # such files have no size, and reading some of them never ends
    ):
        for read in (rows, card, prompts):
            with pytest.raises(ValueError, match=why):
                read(path)


def test_a_file_of_blank_lines_has_nothing_in_it(tmp_path: Path) -> None:
    path = written(tmp_path, "", " ")
    with pytest.raises(ValueError, match="has no examples"):
        rows(path)
    with pytest.raises(ValueError, match="has no prompts"):
        prompts(path)


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    assert len(prompts(written(tmp_path, PROMPT))) == 1
    assert len(prompts(written(tmp_path, PROMPT, PROMPT))) == 2
