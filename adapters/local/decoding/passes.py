"""The forward passes of a batch: what they are, and how transformers' own modules make them, for any model and device."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor

from adapters.local.decoding.attention import quick
from adapters.local.decoding.cache import LEAST_ROWS, SlotCache
from adapters.local.decoding.merged import side_by_side
from adapters.local.decoding.questions import Question, shared_heads
from adapters.local.lora import Adapter

STRETCH = 128
"""Prompt tokens of a row in one pass: more need memory for scores by the square."""

AT_ONCE = 2048
"""Prompt tokens, of all rows, that a CPU reads in one pass: what they become should stay in a core's own cache."""


class Passes(Protocol):
    """Keys and values of a batch's rows, and the passes that read and write them. Member k owns the k-th of equal blocks."""

    @property
    def token_bytes(self) -> int:
        """Memory of the keys and values of one token of one row; known once rows are read."""

    def attached(self) -> AbstractContextManager[None]:
        """Make ready for passes: `read` and `step` are called inside of it alone."""

    def read(self, rows: Sequence[Question], block: int) -> None:
        """Begin with these rows, `block` a member: compute keys and values of all their tokens but the last."""

    def step(self, tokens: Tensor, positions: Tensor, longest: int) -> Tensor:
        """Put one token into each row, and return the logits of the next.

        Args:
            tokens: long[rows].
            positions: long[rows]: how many tokens each row has before this one.
            longest: The largest of the positions.

        Returns:
            float[rows, vocabulary].
        """

    def select(self, rows: Tensor, members: Sequence[int]) -> None:
        """Keep these rows and these members, both in this order; blocks stay equal."""


class ModulePasses:
    """Passes through transformers' own modules.

    On a CPU a row gets the same bits in any company if the model's widths are multiples of 32: what is beyond that of all rows'
    numbers together, torch's activation functions compute by other code (torch 2.13, AVX-512).

    Args:
        model: A transformers model for causal language modelling, in evaluation mode.
        adapters: The members' adapters, all on the same modules; None for one member that is the model itself.
        filler: A token to fill up with.
    """

    def __init__(self, model: Any, adapters: Sequence[Adapter] | None, filler: int) -> None:
        """Lay the members side by side."""
        self._model, self._filler = model, filler
        self._members = None if adapters is None else side_by_side(model, adapters)
        self._count = 1 if adapters is None else len(adapters)

    @property
    def token_bytes(self) -> int:
        """Ask the cache."""
        return self._cache.token_bytes

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Put the members' layers into the model."""
        with quick(self._model), nullcontext() if self._members is None else self._members.attached():
            yield

    def read(self, rows: Sequence[Question], block: int) -> None:
        """Read what rows share once, then the rest of each."""
        heads = shared_heads(rows, block)
        self._cache = SlotCache(len(rows))
        if heads is not None:
            self._cache = SlotCache(len(heads.tokens))
            self._pass(heads.tokens, [0] * len(heads.tokens))
            self._cache.select(self._tensor(heads.places))
        for seats in self._portions([len(row.tokens) - row.shared for row in rows], block):
            own = [rows[seat] for seat in seats]
            self._pass([row.rest for row in own], [row.shared for row in own], self._tensor(seats))

    def _portions(self, lengths: Sequence[int], block: int) -> Iterator[list[int]]:
        """Yield the seats that are read in one pass: the next few of every member, about `AT_ONCE` tokens."""
        starts = range(0, len(lengths), block)
        first = 0
        while first < block:
            width = min(STRETCH, max(lengths[start + first] for start in starts))
            many = block if self._model.device.type != "cpu" else max(1, AT_ONCE // (len(starts) * width))
            last = min(block, first + many)
            yield [start + seat for start in starts for seat in range(first, last)]
            first = last

    def _pass(self, tokens: Sequence[Sequence[int]], starts: Sequence[int], rows: Tensor | None = None) -> None:
        """Put rows of tokens into the cache, each from a slot of its own on, `STRETCH` of them at a time."""
        for done in range(0, max(map(len, tokens)), STRETCH):
            part = [row[done : done + STRETCH] for row in tokens]
            width = LEAST_ROWS * math.ceil(max(map(len, part)) / LEAST_ROWS)
            padded = self._tensor([*row, *[self._filler] * (width - len(row))] for row in part)
            positions = self._tensor(starts)[:, None] + torch.arange(done, done + width, device=padded.device)
            self._cache.places.put(positions, max(starts) + done + width - 1, rows)
            self._forward(self._model.get_decoder(), padded, positions)

    def step(self, tokens: Tensor, positions: Tensor, longest: int) -> Tensor:
        """Ask the model for one token a row."""
        self._cache.places.put(positions[:, None], longest)
        logits: Tensor = self._forward(self._model, tokens[:, None], positions[:, None]).logits[:, -1]
        return logits

    def _forward(self, module: Any, tokens: Tensor, positions: Tensor) -> Any:
        return module(
            input_ids=tokens,
            attention_mask=self._cache.places.mask(self._model.dtype),
            position_ids=positions,
            past_key_values=self._cache,
            use_cache=True,
        )

    def select(self, rows: Tensor, members: Sequence[int]) -> None:
        """Let the other rows go from the cache, and the other members from the layers."""
        self._cache.select(rows)
        if self._members is not None and len(members) < self._count:
            self._members.keep(members)
            self._count = len(members)

    def _tensor(self, numbers: Iterable[Any]) -> Tensor:
        return torch.tensor(list(numbers), device=self._model.device)
