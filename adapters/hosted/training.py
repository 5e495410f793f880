"""A sample as OpenAI's wire wants it uploaded, and what will be refused in it, found before anything is sent.

Uploading does not check a file; a job made from a bad one fails minutes later. The limits are those of OpenAI's
supervised fine-tuning guide as of 2026-11; a token is estimated, see `tokens`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence

from engine.domain.results import ChatRow

FEWEST_ROWS = 10
MOST_ROWS = 50_000
MOST_BYTES = 512 * 1024 * 1024
MOST_TOKENS = 65_536
"""Tokens of one example that gpt-4o and gpt-4.1 models are trained with; longer ones are cut off without a word."""
SPECIAL = re.compile(r"<\|[^\s|<>]{1,64}\|>")
HALF = re.compile("[\ud800-\udfff]")
LINE_ENDS = re.compile("[\x85\u2028\u2029]")
CHARACTERS_A_TOKEN = 4


def training_file(rows: Sequence[ChatRow]) -> bytes:
    """Return the rows as JSON Lines in the chat format: the same bytes for the same rows.

    Raises:
        UnicodeEncodeError: When a text holds half of a character, which `objections` names.
    """
    return "".join(_line(row) for row in rows).encode()


def objections(rows: Sequence[ChatRow]) -> list[str]:
    """Say what will be refused: first what is wrong with the sample as a whole, then row by row."""
    found = list(_of_the_sample(rows))
    for place, row in enumerate(rows, start=1):
        found += [f"row {place} (id {row.row_id}): {fault}" for fault in _of_a_row(row)]
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
    return json_line({"messages": [{"role": role, "content": text} for role, text in _turns(row)]})


def _turns(row: ChatRow) -> list[tuple[str, str]]:
    system = [] if row.system is None else [("system", row.system)]
    return [*system, ("user", row.user), ("assistant", row.assistant)]


def _of_the_sample(rows: Sequence[ChatRow]) -> Iterator[str]:
    if len(rows) < FEWEST_ROWS:
        yield f"all rows: the sample has {len(rows)}, and a job needs at least {FEWEST_ROWS}"
    if len(rows) > MOST_ROWS:
        yield f"all rows: the sample has {len(rows):,}, and a job takes at most {MOST_ROWS:,}"
    size = sum(len(_line(row).encode("utf-8", "replace")) for row in rows)
    if size > MOST_BYTES:
        yield f"all rows: the file has {size / 2**20:.0f} MB, and a file has at most {MOST_BYTES // 2**20}"


def _of_a_row(row: ChatRow) -> Iterator[str]:
    length = 0
    for role, text in _turns(row):
        length += tokens(text)
        if not text.strip():
            yield f"the {role} turn is empty"
        if special := SPECIAL.search(text):
            yield f"the {role} turn holds `{special.group()}`, which reads as a special token"
        if HALF.search(text):
            yield f"the {role} turn holds half of a character (a lone surrogate)"
    if length > MOST_TOKENS:
        yield f"it has about {length:,} tokens, and an example has at most {MOST_TOKENS:,}"
