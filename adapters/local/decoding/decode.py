"""Greedy decoding of many rows at once, for several adapters on one base model.

The model's own code computes (`passes.py`), or for small Llamas on a CPU code written for this (`llama.py`), unless trials
have shown that it makes something else (`groups.py`). With both, a row's answer does not depend on its company: its tokens
lie in the same slots (`cache.py`), every product has at least `LEAST_ROWS` rows (fewer take another kernel, with other sums),
and what prompts share is decided by their task alone. On a CPU answers are therefore the same bit for bit in any batch; on a
GPU kernels choose by shape, and near ties may fall either way.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from adapters.local.decoding import llama
from adapters.local.decoding.cache import LEAST_ROWS
from adapters.local.decoding.passes import ModulePasses, Passes
from adapters.local.decoding.questions import Answer, Question, Rules
from adapters.local.lora import Adapter
from engine.domain.results import Finish

WORTH_COMPACTING = 0.9
"""Rows that have ended leave the batch once it would shrink to this share."""


def passes(model: Any, adapters: Sequence[Adapter] | None, filler: int, *, by_modules: bool = False) -> Passes:
    """Return what computes a batch: transformers' modules if so told, else the model and the adapted modules alone decide."""
    if not by_modules and llama.takes(model, () if adapters is None else adapters[0].a):
        return llama.LlamaPasses(model, adapters, filler)
    return ModulePasses(model, adapters, filler)


def best(logits: Tensor) -> Tensor:
    """Return long[rows], the likeliest token of each row, from float[rows, vocabulary].

    On a CPU numpy looks for it: torch takes ten times as long, half a millisecond for 350 rows of 980 (torch 2.13).
    """
    if logits.device.type != "cpu" or logits.dtype != torch.float32:
        return logits.argmax(-1)
    return torch.from_numpy(logits.numpy().argmax(-1))


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
        self._device, self._rules = model.device, rules
        self._passes = passes(model, adapters, rules.filler, by_modules=rules.by_modules)
        self._rows = max(LEAST_ROWS, *map(len, asked))
        self._idle = Question("", 0, [rules.filler])
        self._seats = [seat for own in asked for seat in (*own, *[self._idle] * (self._rows - len(own)))]
        self._left = Counter(question.task for own in asked for question in own)
        with torch.inference_mode(), self._passes.attached():
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
            with self._passes.attached():
                while not (ended := self._step()) or not self._settle(ended, answers):
                    pass
            self._compact()
            self._owed = time.perf_counter() - self._mark
        return answers

    def _tensor(self, numbers: Iterable[Any]) -> Tensor:
        return torch.tensor(list(numbers), device=self._device)

    def _begin(self) -> None:
        rows = self._seats
        self._passes.read(rows, self._rows)
        self._next = self._tensor(row.tokens[-1] for row in rows)
        self._positions = self._tensor(len(row.tokens) - 1 for row in rows)
        self._longest = max(len(row.tokens) for row in rows) - 1
        self._alive = self._tensor(row is not self._idle for row in rows)
        self._seat = torch.arange(len(rows), device=self._device)
        self._made = torch.zeros(len(rows), self._rules.limit, dtype=torch.long, device=self._device)
        self._ends = self._tensor(self._rules.ends).long()
        self._steps = 0

    def _logits(self) -> Tensor:
        """Put the next token into every row, and return float[rows, vocabulary]."""
        return self._passes.step(self._next, self._positions, self._longest)

    def _step(self) -> list[int]:
        """Generate one token in every row, and return the seats of the rows that end with it."""
        self._next = best(self._logits())
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
        self._passes.select(keep, kept)
        self._next, self._positions, self._alive, self._seat = (
            kind[keep] for kind in (self._next, self._positions, self._alive, self._seat)
        )
        self._rows = rows
