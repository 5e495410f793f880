"""Training files, as a job validates them: pure, and with the vendor's texts."""

from __future__ import annotations

import json
import re
from typing import Any

from engine.domain.conversation import ChatRow

FEWEST = 10
_SPECIAL = re.compile(r"<\|[a-z_]+\|>")
_ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function"})


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
        content: JSON lines, each with `messages`: one user turn and one answer, after a system prompt or none; the
            stand-in knows no longer chats.
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
    roles = [role for role, _ in turns]
    if roles[-1] != "assistant":
        raise _bad(f"Invalid file format. Example {number}: the last message must be from the assistant.")
    if messages[-1].get("weight", 1) == 0:
        raise _bad(f"Invalid file format. Example {number} has no assistant message with a weight of 1.")
    if roles not in (["user", "assistant"], ["system", "user", "assistant"]):
        raise _bad(f"Example {number} has the turns {', '.join(roles)}; this model is trained on single exchanges.")
    system = turns[0][1] if roles[0] == "system" else None
    return ChatRow(str(number), turns[-2][1], turns[-1][1], system)


def _turn(message: Any, number: int, place: int) -> tuple[str, str]:
    """Return the role and the text of one message."""
    if not isinstance(message, dict) or message.get("role") not in _ROLES:
        role = message.get("role") if isinstance(message, dict) else None
        raise _bad(f"Invalid file format. Example {number}, message {place}: unsupported role {role!r}.")
    text = message.get("content")
    if not isinstance(text, str):
        raise _bad(f"Invalid file format. Example {number}, message {place}: missing content.")
    special = _SPECIAL.search(text)
    if special is not None:
        raise BadFileError(f"Example {number} message contains an invalid token: {special[0]}")
    role = message["role"]
    return ("system" if role == "developer" else role), text


def _bad(what: str) -> BadFileError:
    return BadFileError(f"The job failed due to an invalid training file. {what}")
