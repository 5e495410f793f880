"""`file:PATH`: the user's own training examples, in the chat format of fine-tuning APIs.

JSON Lines, one example a line: `{"messages": [{"role": "system"|"user"|"assistant", "content": "..."}, ...]}` with an
optional system turn first and exactly one user and one assistant turn. The file is pinned by its bytes; relative
paths are relative to the working directory.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from adapters.user_file import pin, refuse_half_characters
from engine.domain.results import ChatRow
from engine.ports import SourceCard

ROLES = (("user", "assistant"), ("system", "user", "assistant"))


class ChatFile:
    """A JSON Lines file of chat examples."""

    revision = 1

    def card(self, argument: str) -> SourceCard:
        """Describe and pin the file.

        Raises:
            FileNotFoundError: When it is not there.
            ValueError: When a line is not a chat example; the message names the line.
        """
        rows = self.rows(argument)
        systems = {row.system for row in rows}
        only = next(iter(systems)) if len(systems) == 1 else None
        return SourceCard(
            pin=pin(Path(argument)),
            rows=len(rows),
            tier="unknown",
            system=only,
            licence="the user's own",
            detail=argument,
            systems=len(systems),
        )

    def rows(self, argument: str) -> Sequence[ChatRow]:
        """Return every row, in the order of the lines."""
        path = Path(argument).expanduser()
        return _rows(path, pin(path))


@cache
def _rows(path: Path, content: str) -> tuple[ChatRow, ...]:
    del content  # only makes a changed file a new question
    rows = tuple(
        _row(line, f"{path}:{number}")
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if line.strip()
    )
    if not rows:
        message = f"{path} has no examples"
        raise ValueError(message)
    return rows


def _row(line: str, where: str) -> ChatRow:
    try:
        messages = json.loads(line)["messages"]
        turns = {message["role"]: message["content"] for message in messages}
        roles = tuple(message["role"] for message in messages)
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        message = f'{where}: not a chat example: {error!r}; expected {{"messages": [{{"role": ..., "content": ...}}]}}'
        raise ValueError(message) from error
    refuse_half_characters(turns, where)
    if roles not in ROLES or not all(isinstance(text, str) for text in turns.values()):
        message = f"{where}: expected one user and one assistant turn, after at most one system turn; got {roles}"
        raise ValueError(message)
    return _chat_row(where.rpartition(":")[2], turns)


def _chat_row(number: str, turns: Mapping[str, str]) -> ChatRow:
    return ChatRow(f"line-{number}", turns["user"], turns["assistant"], turns.get("system") or None)
