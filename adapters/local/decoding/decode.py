"""Greedy decoding of many rows at once, for several adapters on one base model; the model's own code computes.

A row's answer does not depend on its company: its tokens lie in the same slots (`cache.py`), every product has at least
`LEAST_ROWS` rows (fewer take another kernel, with other sums), and what prompts share is decided by their task alone. On
a CPU answers are therefore the same bit for bit in any batch; on a GPU kernels choose by shape, and near ties may fall
either way.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from adapters.local.decoding.attention import quick
from adapters.local.decoding.cache import BLOCK, SlotCache
from adapters.local.decoding.merged import side_by_side
from adapters.local.lora import Adapter
from engine.domain.results import Finish

LEAST_ROWS = 4
"""Rows of a matrix product from which on a row's bits do not depend on their number (measured: torch 2.13, MKL, AVX-512)."""

STRETCH = 128
"""Prompt tokens of a row in one pass. From 192 on, torch's CPU attention cuts its products by the number of queries, and
their bits with it; there, and here, it works on 32 queries at a time, and a rest of fewer than `LEAST_ROWS` differs."""

AT_ONCE = 2048
"""Prompt tokens, of all rows, that a CPU reads in one pass: what they become should stay in a core's own cache."""

WORTH_COMPACTING = 0.9
"""Rows that have ended leave the batch once it would shrink to this share."""


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
    """

    limit: int
    ends: frozenset[int]
    filler: int


def shared_tokens(prompts: Sequence[Sequence[int]]) -> int:
    """Return how many leading tokens of a task's prompts are worth computing once: a multiple of `BLOCK`, perhaps 0."""
    if len(prompts) < LEAST_ROWS:
        return 0
    least, most = min(map(tuple, prompts)), max(map(tuple, prompts))  # what the first and the last share, all share
    ends = min(map(len, prompts)) - 1
    same = next((place for place in range(ends) if least[place] != most[place]), ends)
    return same // BLOCK * BLOCK


class Batch:
    """Rows that decode together: member k owns the k-th of equal blocks of rows.

    Args:
        model: A transformers model for causal language modelling, in evaluation mode.
        adapters: The members' adapters, all on the same modules; None for one member that is the model itself.
        asked: Each member's questions.
        rules: How to decode.
    """

    def __init__(
        self, model: Any, adapters: Sequence[Adapter] | None, asked: Sequence[Sequence[Question]], rules: Rules
    ) -> None:
        """Read the prompts."""
        started = time.perf_counter()
        self._model, self._rules = model, rules
        self._members = None if adapters is None else side_by_side(model, adapters)
        self._rows = max(LEAST_ROWS, *map(len, asked))
        self._idle = Question("", 0, [rules.filler])
        self._seats = [seat for own in asked for seat in (*own, *[self._idle] * (self._rows - len(own)))]
        self._left = Counter(question.task for own in asked for question in own)
        with torch.inference_mode(), self._attached():
            self._begin()
        self._tokens = sum(len(question.tokens) for own in asked for question in own)
        self._reading = time.perf_counter() - started
        self._clock, self._owed = 0.0, 0.0

    @property
    def done(self) -> bool:
        """Whether every question is answered."""
        return self._left.total() == 0

    def advance(self) -> list[Answer]:
        """Decode until a task has no more rows here or rows should leave, and return what has ended since."""
        answers: list[Answer] = []
        with torch.inference_mode():
            self._mark = time.perf_counter() - self._owed
            with self._attached():
                while not (ended := self._step()) or not self._settle(ended, answers):
                    pass
            self._compact()
            self._owed = time.perf_counter() - self._mark
        return answers

    @contextmanager
    def _attached(self) -> Iterator[None]:
        with quick(self._model), nullcontext() if self._members is None else self._members.attached():
            yield

    def _tensor(self, numbers: Iterable[Any]) -> Tensor:
        return torch.tensor(list(numbers), device=self._model.device)

    def _begin(self) -> None:
        rows = self._seats
        self._read(rows)
        self._next = self._tensor(row.tokens[-1] for row in rows)
        self._positions = self._tensor(len(row.tokens) - 1 for row in rows)
        self._longest = max(len(row.tokens) for row in rows) - 1
        self._alive = self._tensor(row is not self._idle for row in rows)
        self._seat = torch.arange(len(rows), device=self._model.device)
        self._made = torch.zeros(len(rows), self._rules.limit, dtype=torch.long, device=self._model.device)
        self._ends = self._tensor(self._rules.ends).long()
        self._steps = 0

    def _read(self, rows: Sequence[Question]) -> None:
        """Compute keys and values of the prompts, save those of their last tokens: these go through the first step."""
        self._cache = SlotCache(len(rows))
        if any(row.shared for row in rows):
            blocks = [rows[start : start + self._rows] for start in range(0, len(rows), self._rows)]
            heads = [sorted({row.head for row in block}) for block in blocks]
            width = max(map(len, heads))
            self._cache = SlotCache(width * len(heads))
            self._pass([head for own in heads for head in (*own, *[()] * (width - len(own)))], [0] * width * len(heads))
            places = (k * width + heads[k].index(row.head) for k, block in enumerate(blocks) for row in block)
            self._cache.select(self._tensor(places))
        for seats in self._portions([len(row.tokens) - row.shared for row in rows]):
            own = [rows[seat] for seat in seats]
            self._pass([row.tokens[row.shared : -1] for row in own], [row.shared for row in own], self._tensor(seats))

    def _portions(self, lengths: Sequence[int]) -> Iterator[list[int]]:
        """Yield the seats that are read in one pass: the next few of every member, about `AT_ONCE` tokens."""
        starts = range(0, len(lengths), self._rows)
        first = 0
        while first < self._rows:
            width = min(STRETCH, max(lengths[start + first] for start in starts))
            many = self._rows if self._model.device.type != "cpu" else max(1, AT_ONCE // (len(starts) * width))
            last = min(self._rows, first + many)
            yield [start + seat for start in starts for seat in range(first, last)]
            first = last

    def _pass(self, tokens: Sequence[Sequence[int]], starts: Sequence[int], rows: Tensor | None = None) -> None:
        """Put rows of tokens into the cache, each from a slot of its own on, `STRETCH` of them at a time."""
        for done in range(0, max(map(len, tokens)), STRETCH):
            part = [row[done : done + STRETCH] for row in tokens]
            width = LEAST_ROWS * math.ceil(max(map(len, part)) / LEAST_ROWS)
            padded = self._tensor([*row, *[self._rules.filler] * (width - len(row))] for row in part)
            positions = self._tensor(starts)[:, None] + torch.arange(done, done + width, device=padded.device)
            self._cache.places.put(positions, max(starts) + done + width - 1, rows)
            self._forward(self._model.get_decoder(), padded, positions)

    def _forward(self, module: Any, tokens: Tensor, positions: Tensor) -> Any:
        return module(
            input_ids=tokens,
            attention_mask=self._cache.places.mask(self._model.dtype),
            position_ids=positions,
            past_key_values=self._cache,
            use_cache=True,
        )

    def _step(self) -> list[int]:
        """Generate one token in every row, and return the seats of the rows that end with it."""
        positions = self._positions[:, None]
        self._cache.places.put(positions, self._longest)
        made = self._forward(self._model, self._next[:, None], positions)
        self._next = made.logits[:, -1].argmax(-1)
        self._made[self._seat, self._steps] = self._next
        self._steps += 1
        self._positions += 1
        self._longest += 1
        ended = self._alive.clone()
        if self._steps < self._rules.limit:
            ended &= (self._next[:, None] == self._ends).any(1)
        self._alive &= ~ended
        seats: list[int] = self._seat[ended].tolist()
        now = time.perf_counter()
        self._clock += (now - self._mark) / self._left.total()
        self._mark = now
        return seats

    def _settle(self, seats: Sequence[int], answers: list[Answer]) -> bool:
        """Add the answers in these seats, and tell whether a task is complete or rows should leave."""
        complete = False
        for seat in seats:
            question = self._seats[seat]
            tokens = self._made[seat, : self._steps].tolist()
            finish = Finish.STOP if tokens[-1] in self._rules.ends else Finish.LENGTH
            seconds = self._reading * len(question.tokens) / self._tokens + self._clock
            answers.append(Answer(question, tokens, finish, seconds))
            self._left[question.task] -= 1
            complete = complete or self._left[question.task] == 0
        return complete or self._worth_compacting(self._alive_rows())

    def _alive_rows(self) -> list[int]:
        counts: list[int] = self._alive.view(-1, self._rows).sum(1).tolist()
        return counts

    def _worth_compacting(self, counts: Sequence[int]) -> bool:
        members, rows = sum(map(bool, counts)), max(LEAST_ROWS, *counts)
        return members * rows <= WORTH_COMPACTING * len(self._seat)

    def _compact(self) -> None:
        """Let rows that have ended leave, and members that have no others; blocks stay equal."""
        counts = self._alive_rows()
        if self.done or not self._worth_compacting(counts):
            return
        kept = [member for member, count in enumerate(counts) if count]
        rows = max(LEAST_ROWS, *counts)
        order = torch.argsort(~self._alive.view(-1, self._rows)[kept], dim=1, stable=True)[:, :rows]
        keep = (order + self._tensor(kept)[:, None] * self._rows).flatten()
        self._cache.select(keep)
        self._next, self._positions, self._alive, self._seat = (
            kind[keep] for kind in (self._next, self._positions, self._alive, self._seat)
        )
        if self._members is not None and len(kept) < len(counts):
            self._members.keep(kept)
        self._rows = rows
