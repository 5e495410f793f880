"""A sample as providers want it uploaded, and what will be refused in it, found before anything is sent.

Uploading does not check a file; a job made from a bad one fails minutes later. A token is estimated, see `tokens`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from engine.domain.conversation import ChatRow, Turn

SPECIAL = re.compile(r"<\|[^\s|<>]{1,64}\|>")
HALF = re.compile("[\ud800-\udfff]")
LINE_ENDS = re.compile("[\x85\u2028\u2029]")
CHARACTERS_A_TOKEN = 4


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a provider takes, by default OpenAI's bounds (its supervised fine-tuning guide, 2026-11).

    Attributes:
        fewest_rows: Examples that a job needs, >= 1.
        most_rows: Examples that it takes; None for any number.
        most_bytes: Bytes of a file.
        most_tokens: Tokens of one example that models are trained with, longer ones being cut off without a word; None
            where that depends on the model.
        has_special: Whether texts that read as special tokens are refused.
    """

    fewest_rows: int = 10
    most_rows: int | None = 50_000
    most_bytes: int = 512 * 2**20
    most_tokens: int | None = 65_536
    has_special: bool = True


OPENAI = Bounds()


def training_file(rows: Sequence[ChatRow]) -> bytes:
    """Return the rows as JSON Lines in the chat format: the same bytes for the same rows.

    Raises:
        UnicodeEncodeError: When a text holds half of a character, which `objections` names.
    """
    return "".join(_line(row) for row in rows).encode()


def objections(rows: Sequence[ChatRow], bounds: Bounds = OPENAI) -> list[str]:
    """Say what will be refused: first what is wrong with the sample as a whole, then row by row."""
    found = list(_of_the_sample(rows, bounds))
    for place, row in enumerate(rows, start=1):
        found += [f"row {place} (id {row.row_id}): {fault}" for fault in _of_a_row(row, bounds)]
    return found


def tokens(text: str) -> int:
    """Estimate a text's tokens: a token for every four characters, and never fewer than words.

    Four characters a token is the vendor's own rule of thumb for English; other scripts have more tokens.
    """
    return max(-(-len(text) // CHARACTERS_A_TOKEN), len(text.split()))


def json_line(value: object) -> str:
    """Return one line of JSON Lines; what some readers take for the end of a line is written as an escape."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return LINE_ENDS.sub(lambda end: f"\\u{ord(end.group()):04x}", text) + "\n"


def _line(row: ChatRow) -> str:
    return json_line({"messages": [_message(turn) for turn in row.turns]})


def _message(turn: Turn) -> dict[str, object]:
    """Write a turn; an assistant's is trained on unless its weight is 0."""
    message: dict[str, object] = {"role": turn.role, "content": turn.text}
    return message | {"weight": 0} if turn.role == "assistant" and not turn.is_trained else message


def _of_the_sample(rows: Sequence[ChatRow], bounds: Bounds) -> Iterator[str]:
    if len(rows) < bounds.fewest_rows:
        yield f"all rows: the sample has {len(rows)}, and a job needs at least {bounds.fewest_rows}"
    if bounds.most_rows is not None and len(rows) > bounds.most_rows:
        yield f"all rows: the sample has {len(rows):,}, and a job takes at most {bounds.most_rows:,}"
    size = sum(len(_line(row).encode("utf-8", "replace")) for row in rows)
    if size > bounds.most_bytes:
        yield f"all rows: the file has {size / 2**20:.0f} MB, and a file has at most {bounds.most_bytes // 2**20}"


def _of_a_row(row: ChatRow, bounds: Bounds) -> Iterator[str]:
    for turn in row.turns:
        yield from (f"the {turn.role} turn {fault}" for fault in _of_a_turn(turn, bounds))
    if all(turn.role == "assistant" for turn in row.turns):
        yield "it is plain text, and jobs train on conversations"
    if row.turns[-1].role != "assistant":
        yield "its last turn is not an assistant's"
    if not any(turn.is_trained for turn in row.turns):
        yield "no turn of it is trained on"
    if row.rejected is not None:
        yield "it has a rejected answer, and jobs do not train on preferences"
    length = sum(tokens(turn.text) for turn in row.turns)
    if bounds.most_tokens is not None and length > bounds.most_tokens:
        yield f"it has about {length:,} tokens, and an example has at most {bounds.most_tokens:,}"


def _of_a_turn(turn: Turn, bounds: Bounds) -> Iterator[str]:
    if turn.images:
        yield "has an image, and jobs train on text only"
    if not turn.text.strip():
        yield "is empty"
    if bounds.has_special and (special := SPECIAL.search(turn.text)):
        yield f"holds `{special.group()}`, which reads as a special token"
    if HALF.search(turn.text):
        yield "holds half of a character (a lone surrogate)"
