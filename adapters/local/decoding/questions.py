"""What is asked of a batch, and what it answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from adapters.local.decoding.cache import BLOCK, LEAST_ROWS
from engine.domain.results import Finish


@dataclass(frozen=True, slots=True)
class Question:
    """One row: a prompt of a task.

    Attributes:
        task: The task's key.
        index: Which of its prompts.
        tokens: The rendered prompt, at least one token.
        shared: Leading tokens that all prompts of the task share and that are worth computing once; a multiple of
            `BLOCK`, smaller than the number of tokens.
    """

    task: str
    index: int
    tokens: Sequence[int]
    shared: int = 0

    @property
    def head(self) -> tuple[int, ...]:
        """The shared tokens."""
        return tuple(self.tokens[: self.shared])

    @property
    def rest(self) -> Sequence[int]:
        """The tokens after those, save the last one: it goes through the first step of decoding."""
        return self.tokens[self.shared : -1]


@dataclass(frozen=True, slots=True)
class Answer:
    """One row, ended.

    Attributes:
        question: What was asked.
        tokens: What was generated, the end token included.
        finish: Why it ended.
        seconds: Its share of the batch's wall time; the shares of a batch's rows add up to it.
    """

    question: Question
    tokens: list[int]
    finish: Finish
    seconds: float


@dataclass(frozen=True, slots=True)
class Rules:
    """How to decode.

    Attributes:
        limit: Longest answer, in tokens, >= 1.
        ends: Tokens that end an answer.
        filler: A token for rows that only fill up; any will do.
        by_modules: Whether transformers' modules compute, whatever else could (see `groups.Footprint`).
    """

    limit: int
    ends: frozenset[int]
    filler: int
    by_modules: bool = False


@dataclass(frozen=True, slots=True)
class Heads:
    """The beginnings that rows share, each of which is read once for each member.

    Attributes:
        tokens: Equally many for every member; empty ones fill up.
        block: How many a member has.
        places: For every row, the index of its own in `tokens`.
    """

    tokens: list[tuple[int, ...]]
    block: int
    places: list[int]


def shared_tokens(prompts: Sequence[Sequence[int]]) -> int:
    """Return how many leading tokens of a task's prompts are worth computing once: a multiple of `BLOCK`, perhaps 0."""
    if len(prompts) < LEAST_ROWS:
        return 0
    least, most = min(map(tuple, prompts)), max(map(tuple, prompts))  # what the first and the last share, all share
    ends = min(map(len, prompts)) - 1
    same = next((place for place in range(ends) if least[place] != most[place]), ends)
    return same // BLOCK * BLOCK


def shared_heads(rows: Sequence[Question], block: int) -> Heads | None:
    """Return what rows share, each member owning the next `block` of them; None when no row shares anything."""
    if not any(row.shared for row in rows):
        return None
    blocks = [rows[start : start + block] for start in range(0, len(rows), block)]
    heads = [sorted({row.head for row in own}) for own in blocks]
    width = max(map(len, heads))
    places = [k * width + heads[k].index(row.head) for k, own in enumerate(blocks) for row in own]
    return Heads([head for own in heads for head in (*own, *[()] * (width - len(own)))], width, places)
