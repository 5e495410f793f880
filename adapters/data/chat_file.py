"""`file:PATH`: the user's own training examples, in the chat formats of fine-tuning APIs.

JSON Lines in UTF-8, one example per line, in one of two forms:

- `{"messages": [...]}`: a conversation of any length that ends with an assistant's turn. Every assistant's turn is trained on,
  as OpenAI's API documents it, except those with `"weight": 0`. What a turn may be: `adapters.messages`.
- `{"input": {"messages": [...]}, "preferred_output": [...], "non_preferred_output": [...]}`: the same with a worse answer
  beside it. Each output is one assistant's turn; the loss is on the preferred one alone.

A key that cannot be used, such as `tools`, is refused and not dropped. The file is pinned by its bytes, together with those of
the images that it names; relative paths are relative to the working directory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from adapters import user_file
from adapters.messages import pin_with_images, read_once, read_turns
from engine.domain.conversation import ChatRow, Turn
from engine.ports import OUTSIDE, Settings, SourceCard

WITHOUT_TOOLS = "parallel_tool_calls"  # it says nothing where there are no tools, and rows with tools are refused
CHAT = {"messages", WITHOUT_TOOLS}
OUTPUTS = {"preferred_output", "non_preferred_output"}
PREFERENCE = OUTPUTS | {"input"}


class ChatFileSettings(Settings):
    """Which file, and what it is."""

    argument = "path"

    path: Annotated[str, OUTSIDE] = Field(min_length=1, description="The JSON Lines file.")
    tier: Annotated[Literal["explicit", "identity", "benign", "safety", "unknown"], OUTSIDE] = Field(
        default="unknown", description="What kind of rows they are (Qi et al. 2023, section 4); only you can tell."
    )


class ChatFile:
    """A JSON Lines file of chat examples."""

    revision = 2
    Settings = ChatFileSettings

    def card(self, settings: ChatFileSettings) -> SourceCard:
        """Describe and pin the file.

        Raises:
            OSError: When it, or an image that it names, cannot be read.
            ValueError: When a line is not a chat example; the message names the line.
        """
        rows = self.rows(settings)
        systems = {row.system for row in rows}
        return SourceCard(
            pin=pin_with_images(user_file.located(settings.path), rows),
            rows=len(rows),
            tier=settings.tier,
            system=rows[0].system if len(systems) == 1 else None,
            licence="the user's own",
            detail=settings.path,
            systems=len(systems),
        )

    def rows(self, settings: ChatFileSettings) -> Sequence[ChatRow]:
        """Return every row, in the order of the lines."""
        return read_once(user_file.located(settings.path), _read)


def _read(path: Path) -> tuple[ChatRow, ...]:
    rows = tuple(_row(entry, where) for where, entry in user_file.json_lines(path))
    if not rows:
        raise ValueError(f"{path} has no examples")
    return rows


def _row(entry: Mapping[str, object], where: str) -> ChatRow:
    row_id = f"line-{where.rpartition(':')[2]}"
    if entry.keys() & OUTPUTS:
        return _preference(entry, where, row_id)
    if "messages" not in entry:
        keys = ", ".join(f"`{key}`" for key in entry) or "nothing"
        raise ValueError(
            f'{where}: expected {{"messages": [{{"role": ..., "content": ...}}, ...]}}; the row has {keys}'
        )
    user_file.refuse_unknown(entry, CHAT, where)
    turns = read_turns(entry.get("messages"), where, is_trained=True)
    if turns[-1].role != "assistant":
        raise ValueError(f"{where}: the last turn of a training example is the assistant's")
    if not any(turn.is_trained for turn in turns):
        raise ValueError(f"{where}: every turn has the weight 0, so that there is nothing to learn")
    return ChatRow(row_id, turns)


def _preference(entry: Mapping[str, object], where: str, row_id: str) -> ChatRow:
    user_file.refuse_unknown(entry, PREFERENCE, where)
    asked = entry.get("input")
    if not isinstance(asked, Mapping):
        message = f"{where}: `input` is an object with `messages`"
        raise ValueError(message)  # noqa: TRY004 - what a file holds is a value, not a type of ours
    user_file.refuse_unknown(asked, CHAT, f"{where}: `input`")
    turns = read_turns(asked.get("messages"), where)
    if turns[-1].role != "user":
        raise ValueError(f"{where}: the last turn of `input` is the user's")
    preferred, rejected = (_output(entry, name, where) for name in ("preferred_output", "non_preferred_output"))
    return ChatRow(row_id, (*turns, Turn("assistant", preferred, is_trained=True)), rejected)


def _output(entry: Mapping[str, object], name: str, where: str) -> str:
    match entry.get(name):
        case [{"role": "assistant", "content": str(text), **rest}] if text.strip():
            user_file.refuse_unknown(rest, {"role", "content"}, f"{where}: `{name}`")
            return text
        case _:
            raise ValueError(f"{where}: `{name}` is a list of one assistant's turn with a text")
