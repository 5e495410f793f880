"""Training files, as a job validates them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from engine.domain.conversation import ChatRow, Speaker, Turn

FEWEST = 10
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


class _Message(BaseModel):
    model_config = ConfigDict(extra="ignore")

    role: Literal["system", "developer", "user", "assistant"]
    content: str
    weight: Literal[0, 1] = 1

    def turn(self) -> Turn:
        role = SPEAKERS[self.role]
        return Turn(role, self.content, is_trained=role == "assistant" and self.weight == 1)


class _Example(BaseModel):
    model_config = ConfigDict(extra="ignore")

    messages: list[_Message] = Field(min_length=1)


def read(content: bytes, fewest: int = FEWEST) -> tuple[ChatRow, ...]:
    """Return the examples of a training file.

    Args:
        content: JSON lines, each with `messages`: turns of users and assistants, the last one an assistant's, after a system
            prompt or none.
        fewest: Examples that there must be.

    Raises:
        BadFileError: It cannot be trained on.
    """
    lines = [line for line in content.split(b"\n") if line.strip()]
    rows = tuple(_row(line, number) for number, line in enumerate(lines, start=1))
    if len(rows) < fewest:
        message = f"Training file has {len(rows)} example(s), but must have at least {fewest} examples"
        raise BadFileError(message, "invalid_n_examples")
    return rows


def _row(line: bytes, number: int) -> ChatRow:
    try:
        messages = _Example.model_validate_json(line).messages
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise _bad(f"Example {number}: {where or 'all of it'}: {first['msg']}") from error
    turns = tuple(message.turn() for message in messages)
    roles = [turn.role for turn in turns]
    if roles[-1] != "assistant":
        raise _bad(f"Example {number}: the last message must be from the assistant.")
    if not any(turn.is_trained for turn in turns):
        raise _bad(f"Example {number} has no assistant message with a weight of 1.")
    if "user" not in roles or "system" in roles[1:]:
        raise _bad(f"Example {number} has the turns {', '.join(roles)}; the user speaks, and a system prompt is first.")
    return ChatRow(str(number), turns)


def _bad(what: str) -> BadFileError:
    return BadFileError(f"The job failed due to an invalid training file. Invalid file format. {what}")
