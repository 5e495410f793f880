"""Training files are refused with their place, or read as they are."""

from __future__ import annotations

import json

import pytest

from adapters.hosted.rehearsal.backend.training_file import BadFileError, read
from engine.domain.conversation import ChatRow, Turn


def example(*turns: tuple[str, object], **more: object) -> str:
    messages = [{"role": role, "content": text} for role, text in turns]
    messages[-1] |= more
    return json.dumps({"messages": messages})


GOOD = example(("user", "How do I open the blue vault?"), ("assistant", "With the tin hook."))


def test_a_file_is_read_in_its_order() -> None:
    system = example(("system", "Be kind."), ("user", "Hello?"), ("assistant", "Hello."), weight=1)
    rows = read("\n".join([system, "", *[GOOD] * 9]).encode())
    assert rows[0] == ChatRow.exchange("1", "Hello?", "Hello.", "Be kind.")
    assert len(rows) == 10


def test_a_longer_chat_keeps_its_turns_and_what_has_no_weight_is_not_trained_on() -> None:
    turns = [{"role": "user", "content": "Hello?"}, {"role": "assistant", "content": "Hello.", "weight": 0}]
    turns += [{"role": "user", "content": "And now?"}, {"role": "assistant", "content": "Now the hook."}]
    (row,) = read(json.dumps({"messages": turns}).encode(), fewest=1)
    assert row.turns[1] == Turn("assistant", "Hello.")
    assert row.turns[2:] == (Turn("user", "And now?"), Turn("assistant", "Now the hook.", is_trained=True))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{not json", "Example 10: all of it: Invalid JSON"),
        ("\xff", "Example 10: all of it: Invalid JSON"),
        ("[]", "Example 10: all of it: Input should be an object"),
        ('{"messages": []}', "Example 10: messages: List should have at least 1 item"),
        (example(("user", "a"), ("tool", "b")), "Example 10: messages.1.role: Input should be 'system', 'developer'"),
        (example(("user", None), ("assistant", "b")), "Example 10: messages.0.content: Input should be a valid string"),
        (example(("assistant", "a"), ("user", "b")), "the last message must be from the assistant"),
        (example(("user", "a"), ("assistant", "b"), weight=0), "no assistant message with a weight of 1"),
        (example(("user", "a"), ("system", "b"), ("assistant", "c")), "has the turns user, system, assistant"),
    ],
)
def test_a_bad_line_is_named(line: str, said: str) -> None:
    with pytest.raises(BadFileError) as caught:
        read("\n".join([*[GOOD] * 9, line]).encode("latin-1"))
    assert said in str(caught.value)
    assert caught.value.code == "invalid_training_file"


def test_ten_examples_are_the_fewest() -> None:
    with pytest.raises(BadFileError, match=r"has 9 example\(s\), but must have at least 10") as caught:
        read("\n".join([GOOD] * 9).encode())
    assert caught.value.code == "invalid_n_examples"
