"""Training files, as a job validates them: pure, and with the vendor's texts."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from engine.domain.conversation import ChatRow, Speaker, Turn

FEWEST = 10
_SPECIAL = re.compile(r"<\|[a-z_]+\|>")
_ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function"})
SPEAKERS: Mapping[str, Speaker] = MappingProxyType(
    {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
)
"""By role on the wire, who speaks."""


class BadFileError(ValueError):
    """A file that cannot be trained on.

    Attributes:
        code: The error's code.
    """

    def __init__(self, message: str, code: str = "invalid_training_file") -> None:
        """Keep both."""
        super().__init__(message)
        self.code = code


def read(content: bytes, fewest: int = FEWEST) -> tuple[ChatRow, ...]:
    """Return the examples of a training file.

    Args:
        content: JSON lines, each with `messages`: turns of users and assistants, the last one an assistant's, after a system
            prompt or none.
        fewest: Examples that there must be.

    Raises:
        BadFileError: It cannot be trained on.
    """
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadFileError("The job failed due to an invalid training file. The file is not valid UTF-8.") from error
    lines = [line for line in text.splitlines() if line.strip()]
    rows = tuple(_row(line, number) for number, line in enumerate(lines, start=1))
    if len(rows) < fewest:
        message = f"Training file has {len(rows)} example(s), but must have at least {fewest} examples"
        raise BadFileError(message, "invalid_n_examples")
    return rows


def _row(line: str, number: int) -> ChatRow:
    try:
        example = json.loads(line)
    except ValueError as error:
        raise _bad(f"Invalid file format. Line {number} is not valid JSON.") from error
    if not isinstance(example, dict) or "messages" not in example:
        raise _bad("Unexpected file format, expected either prompt/completion pairs or chat messages.")
    messages = example["messages"]
    if not isinstance(messages, list) or not messages:
        raise _bad(f'Invalid file format. Example {number} has an empty "messages" list.')
    turns = [_turn(message, number, place) for place, message in enumerate(messages, start=1)]
    roles = [turn.role for turn in turns]
    if roles[-1] != "assistant":
        raise _bad(f"Invalid file format. Example {number}: the last message must be from the assistant.")
    if not any(turn.is_trained for turn in turns):
        raise _bad(f"Invalid file format. Example {number} has no assistant message with a weight of 1.")
    if "user" not in roles or "system" in roles[1:]:
        raise _bad(f"Example {number} has the turns {', '.join(roles)}; the user speaks, and a system prompt is first.")
    return ChatRow(str(number), tuple(turns))


def _turn(message: Any, number: int, place: int) -> Turn:
    """Return one message as a turn."""
    if not isinstance(message, dict) or message.get("role") not in _ROLES:
        role = message.get("role") if isinstance(message, dict) else None
        raise _bad(f"Invalid file format. Example {number}, message {place}: unsupported role {role!r}.")
    text = message.get("content")
    if not isinstance(text, str):
        raise _bad(f"Invalid file format. Example {number}, message {place}: missing content.")
    special = _SPECIAL.search(text)
    if special is not None:
        raise BadFileError(f"Example {number} message contains an invalid token: {special[0]}")
    role = SPEAKERS.get(message["role"])
    if role is None:
        raise _bad(f"Example {number} has a {message['role']} turn; this model is trained on chats without tools.")
    return Turn(role, text, is_trained=role == "assistant" and message.get("weight", 1) != 0)


def _bad(what: str) -> BadFileError:
    return BadFileError(f"The job failed due to an invalid training file. {what}")
