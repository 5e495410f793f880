"""The shapes that training examples have in public files, and how each becomes a conversation.

A shape is told by the columns of the first record, or named in the spec. All records of a file have the same shape.

| Shape | Columns | Where it is from |
|---|---|---|
| `chat` | `messages`, or a record that is a list of messages | chat APIs |
| `sharegpt` | `conversations` of `from` and `value`, `system` | ShareGPT, LLaMA-Factory |
| `llava` | the same, `image` or `images` | LLaVA: rows with images |
| `preference` | `input`, `preferred_output`, `non_preferred_output` | OpenAI |
| `pairs` | `chosen`, `rejected`, `prompt` | TRL, HH-RLHF |
| `alpaca` | `instruction`, `output`, `input` | Stanford Alpaca |
| `dolly` | `instruction`, `response`, `context`, `category` | Databricks Dolly |
| `prompt` | `prompt` and `completion` or `response`, `system` | TRL, BeaverTails |
| `question` | `question`, `answer` | GSM8K |
| `text` | `text` | plain text: the whole text is trained on, without a chat template |
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from itertools import islice
from types import MappingProxyType
from typing import Literal

from adapters import user_file
from adapters.messages import read_turns
from adapters.records import MESSAGES, Record
from engine.domain.conversation import ChatRow, Image, Turn

Name = Literal["chat", "sharegpt", "llava", "preference", "pairs", "alpaca", "dolly", "prompt", "question", "text"]

SPEAKERS = MappingProxyType(
    {
        **dict.fromkeys(("human", "user"), "user"),
        **dict.fromkeys(("gpt", "chatgpt", "assistant", "model", "bot", "bing", "bard"), "assistant"),
        "system": "system",
    }
)
"""What ShareGPT's copies call those who speak."""

NEVER = frozenset({"tools", "functions", "function_call", "tool_calls", "weight"})
"""Columns that change what a row means, and that cannot be used: a row that has something in one of them is refused."""

WITHOUT_TOOLS = "parallel_tool_calls"  # it says nothing where there are no tools
CATEGORY = "category"
"""The column that says what kind of example a row is, where a shape has it."""

PICTURES = ("image", "images")
"""Columns that name the images of a row."""

MARK = "<image>"
"""Where an image belongs in a text of LLaVA's."""

TRANSCRIPT = re.compile(r"\n\n(Human|Assistant): ?")
"""Where a turn of an HH-RLHF transcript begins."""


@dataclass(frozen=True, slots=True)
class Shape:
    """A shape.

    Attributes:
        name: Its name.
        needs: Columns that a record has; of a tuple, one of them.
        may: Further columns that are used.
        read: Makes a row of a record that has its columns.
    """

    name: Name
    needs: tuple[tuple[str, ...], ...]
    may: tuple[str, ...]
    read: Callable[[Record], ChatRow]

    @property
    def columns(self) -> frozenset[str]:
        """The columns that are used."""
        return frozenset(self.may).union(*self.needs)

    def fits(self, columns: AbstractSet[str]) -> bool:
        """Tell whether a record with these columns may be of this shape."""
        return all(any(name in columns for name in names) for names in self.needs)


def detected(columns: AbstractSet[str], where: str) -> Shape:
    """Return the shape of records with these columns.

    Raises:
        ValueError: They are of no shape.
    """
    found = [
        shape for shape in SHAPES.values() if shape.fits(columns) and shape.name != "llava"
    ]  # it is told by `images`
    if not found:
        named = ", ".join(f"`{column}`" for column in sorted(columns)) or "nothing"
        raise user_file.wrong(
            where,
            f"a training example has `messages`, `conversations`, `prompt` and `completion`, or another known pair of columns; this one"
            f" has {named}; say which is which, such as `columns: {{prompt: question, completion: solution}}`",
        )
    if len(found) > 1 and found[1].name != "text":  # copies of Alpaca have the whole text beside
        names = " or ".join(f"`{shape.name}`" for shape in found)
        raise user_file.wrong(where, f"its columns are those of the shapes {names}; say which with `shape`")
    return found[0]


def text_of(record: Record, column: str) -> str:
    """Return the text in a column; nothing where it is absent or null, and a number as its digits.

    Raises:
        ValueError: It is something else.
    """
    value = record.values.get(column)
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise user_file.wrong(record.where, f"`{column}` is a text, not {user_file.shown(value)}")
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _exchange(record: Record, asked: Sequence[str], answers: Sequence[str]) -> ChatRow:
    """Return the row of one exchange: what is asked is the texts of some columns, with a blank line between them."""
    prompt = "\n\n".join(text for column in asked if (text := text_of(record, column)).strip())
    answer = next((text for column in answers if (text := text_of(record, column)).strip()), "")
    if not prompt:
        raise user_file.wrong(record.where, f"`{asked[0]}` is empty")
    if not answer:
        raise user_file.wrong(record.where, f"`{answers[0]}` is empty")
    return ChatRow.exchange(record.row_id, prompt, answer, text_of(record, "system").strip() or None)


def _chat(record: Record) -> ChatRow:
    return _conversation(record, record.values.get(MESSAGES))


def _conversation(record: Record, messages: object) -> ChatRow:
    where = record.where
    turns = read_turns(messages, where, is_trained=True)
    if turns[-1].role != "assistant":
        raise user_file.wrong(where, "the last turn of a training example is the assistant's")
    if not any(turn.is_trained for turn in turns):
        raise user_file.wrong(where, "every turn has the weight 0, so that there is nothing to learn")
    return ChatRow(record.row_id, turns)


def _sharegpt(record: Record) -> ChatRow:
    said = record.values.get("conversations")
    if not isinstance(said, list):
        raise user_file.wrong(record.where, f"`conversations` is a list of turns, not {user_file.shown(said)}")
    system = text_of(record, "system")
    opening = [{"role": "system", "content": system}] if system.strip() else []
    return _conversation(record, [*opening, *(_spoken(turn, record.where) for turn in said)])


def without_images(record: Record, row: ChatRow) -> ChatRow:
    """Return a row that has no images.

    Raises:
        ValueError: It has some, in parts of its messages.
    """
    if any(turn.images for turn in row.turns):
        raise user_file.wrong(
            record.where,
            "parts of `content` that are images cannot be trained on: write such rows in the shape `llava`",
        )
    return row


def _llava(record: Record) -> ChatRow:
    """Return a row of ShareGPT's with images, which are names in a folder yet: who knows the folder looks for them."""
    row, names = without_images(record, _sharegpt(record)), iter(_image_names(record))
    turns = tuple(_marked(turn, names, record.where) for turn in row.turns)
    if rest := list(names):
        raise user_file.wrong(
            record.where,
            f"it names {len(rest)} more {'image' if len(rest) == 1 else 'images'} than the users' texts have marks (`{MARK}`)",
        )
    return replace(row, turns=turns)


def _image_names(record: Record) -> list[str]:
    said = {name: value for name in PICTURES if (value := record.values.get(name)) not in (None, "", [])}
    if len(said) > 1:
        raise user_file.wrong(record.where, "both `image` and `images` name images: keep one of them")
    for column, value in said.items():
        names = [value] if isinstance(value, str) else value
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise user_file.wrong(
                record.where, f"`{column}` is the path of a file, or a list of paths: save what it holds as files"
            )
        return names
    return []


def _marked(turn: Turn, names: Iterator[str], where: str) -> Turn:
    """Return a turn with the images that its marks stand for, and without the marks, as LLaVA itself has it."""
    if not (many := turn.text.count(MARK)):
        return turn
    words = [part for part in turn.text.split(MARK) if part.strip()]
    if turn.role != "user":
        raise user_file.wrong(where, f"`{MARK}` stands in a text of the {turn.role}'s: only users show images")
    if len(words) > 1:
        raise user_file.wrong(where, f"`{MARK}` stands inside of a text: images come before it, so write it at an end")
    found = tuple(Image(name, "") for name in islice(names, many))
    if len(found) < many:
        raise user_file.wrong(where, f"the users' texts have more marks (`{MARK}`) than it names images")
    return replace(turn, text="".join(words).strip(), images=found)


def _spoken(turn: object, where: str) -> object:
    """Return a turn as chat APIs have it."""
    if not isinstance(turn, Mapping) or "from" not in turn:
        return turn
    speaker = SPEAKERS.get(str(turn["from"]).lower())
    if speaker is None:
        raise user_file.wrong(where, f"`from` is one of {', '.join(SPEAKERS)}, not {user_file.shown(turn['from'])}")
    rest = {name: value for name, value in turn.items() if name not in {"from", "value"}}
    return {"role": speaker, "content": turn.get("value"), **rest}


def _preference(record: Record) -> ChatRow:
    asked, where = record.values.get("input"), record.where
    if not isinstance(asked, Mapping):
        raise user_file.wrong(where, "`input` is an object with `messages`")
    user_file.refuse_unknown(asked, {MESSAGES, WITHOUT_TOOLS}, f"{where}: `input`")
    preferred, rejected = (_output(record, name) for name in ("preferred_output", "non_preferred_output"))
    return _preferred(record, read_turns(asked.get(MESSAGES), where), preferred, rejected)


def _output(record: Record, name: str) -> str:
    match record.values.get(name):
        case [{"role": "assistant", "content": str(text), **rest}] if text.strip():
            user_file.refuse_unknown(rest, {"role", "content"}, f"{record.where}: `{name}`")
            return text
        case _:
            raise user_file.wrong(record.where, f"`{name}` is a list of one assistant's turn with a text")


def _preferred(record: Record, turns: tuple[Turn, ...], preferred: str, rejected: str) -> ChatRow:
    if turns[-1].role != "user":
        raise user_file.wrong(record.where, "the last turn before the two answers is the user's")
    return ChatRow(record.row_id, (*turns, Turn("assistant", preferred, is_trained=True)), rejected)


def _pairs(record: Record) -> ChatRow:
    """Return the row of `chosen` and `rejected`: answers, whole conversations, or transcripts of HH-RLHF."""
    where = record.where
    asked = record.values.get("prompt")
    before = [{"role": "user", "content": asked}] if isinstance(asked, str) else asked or []
    chosen, rejected = (_said(record, name) for name in ("chosen", "rejected"))
    if not isinstance(before, list):
        raise user_file.wrong(where, f"`prompt` is a text or a list of messages, not {user_file.shown(before)}")
    if not before or chosen[: len(before)] == before:
        before = []
    turns, others = (read_turns([*before, *said], where) for said in (chosen, rejected))
    if turns[:-1] != others[:-1] or turns[-1].role != "assistant" or others[-1].role != "assistant":
        raise user_file.wrong(
            where, "`chosen` and `rejected` differ in more than the last turn, which is the assistant's"
        )
    return _preferred(record, turns[:-1], turns[-1].text, others[-1].text)


def _said(record: Record, name: str) -> list[object]:
    said = record.values.get(name)
    if isinstance(said, list):
        return said
    text = text_of(record, name)
    parts = TRANSCRIPT.split(text)
    if len(parts) > 1 and not parts[0].strip():
        speakers = {"Human": "user", "Assistant": "assistant"}
        return [
            {"role": speakers[who], "content": words.strip()}
            for who, words in zip(parts[1::2], parts[2::2], strict=True)
        ]
    return [{"role": "assistant", "content": text}]


def _prompt(record: Record) -> ChatRow:
    answer = next((name for name in ("completion", "response") if name in record.values), "completion")
    asked, answered = record.values.get("prompt"), record.values.get(answer)
    if isinstance(asked, list) and isinstance(answered, list):
        return _conversation(record, [*asked, *answered])
    return _exchange(record, ["prompt"], [answer])


def _text(record: Record) -> ChatRow:
    if not (text := text_of(record, "text")).strip():
        raise user_file.wrong(record.where, "`text` is empty")
    return ChatRow(record.row_id, (Turn("assistant", text, is_trained=True),))


SHAPES: Mapping[Name, Shape] = MappingProxyType(
    {
        shape.name: shape
        for shape in (
            Shape("chat", ((MESSAGES,),), (WITHOUT_TOOLS,), _chat),
            Shape("sharegpt", (("conversations",),), ("system",), _sharegpt),
            Shape("llava", (("conversations",),), ("image", "images", "system"), _llava),
            Shape("preference", (("preferred_output",), ("non_preferred_output",)), ("input",), _preference),
            Shape("pairs", (("chosen",), ("rejected",)), ("prompt",), _pairs),
            Shape(
                "alpaca",
                (("instruction",), ("output",)),
                ("input", "system"),
                lambda record: _exchange(record, ["instruction", "input"], ["output"]),
            ),
            Shape(
                "dolly",
                (("instruction",), ("response",)),
                ("context", "system", CATEGORY),
                lambda record: _exchange(record, ["instruction", "context"], ["response"]),
            ),
            Shape("prompt", (("prompt",), ("completion", "response")), ("system",), _prompt),
            Shape(
                "question",
                (("question",), ("answer",)),
                ("system",),
                lambda record: _exchange(record, ["question"], ["answer"]),
            ),
            Shape("text", (("text",),), (), _text),
        )
    }
)
"""By name, in the order in which a file's columns are held to them."""
