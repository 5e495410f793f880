"""Keys and values of rows that decode together, each row from slot 0: what a row sees does not depend on its neighbours.

Prompts are not aligned at either end. Token i of a row lies in slot i, wherever the other rows are, and what comes later
is masked; the number of slots is a multiple of `BLOCK`, so that the kernels sum each row in the same lanes whatever the
length of the longest. On a CPU this makes a row's answer the same, bit for bit, in any company.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

BLOCK = 16
"""Slots are added in blocks of so many: the lanes of the widest vector unit (AVX-512, 16 floats)."""

LEAST_SLOTS = 32
"""Slots of a row at the least: products of one query with 16 take another kernel, with other sums (torch 2.13, MKL)."""

LEAST_ROWS = 4
"""Rows of a matrix product from which on a row's bits do not depend on their number (measured: torch 2.13, MKL, AVX-512)."""


class Places:
    """Where the tokens of the running forward pass go; all layers share it.

    Attributes:
        size: Rows that the cache holds.
        capacity: Slots of a row, a multiple of `BLOCK`.
        rows: long[rows]: the rows of this pass, in its order; None for all.
        positions: long[rows, tokens]: the slot of every token of this pass, ascending by one along a row.
    """

    def __init__(self, size: int) -> None:
        """Start without slots."""
        self.size = size
        self.capacity = 0
        self.rows: Tensor | None = None
        self.positions = torch.zeros(0, 0, dtype=torch.long)
        self._flat: dict[int, Tensor] = {}

    def put(self, positions: Tensor, longest: int, rows: Tensor | None = None) -> None:
        """Say where the next pass writes; `longest` is the largest position in it."""
        self.capacity = max(LEAST_SLOTS, self.capacity, -(-(longest + 1) // BLOCK) * BLOCK)
        self.positions, self.rows = positions, rows
        self._flat.clear()

    def flat(self, heads: int) -> Tensor:
        """Return long[rows * heads * tokens]: the places in the memory of one layer, seen as one list of slots."""
        if heads not in self._flat:
            device = self.positions.device
            rows = torch.arange(self.size, device=device) if self.rows is None else self.rows
            lanes = rows[:, None] * heads + torch.arange(heads, device=device)
            self._flat[heads] = (lanes[:, :, None] * self.capacity + self.positions[:, None]).flatten()
        return self._flat[heads]

    def mask(self, dtype: torch.dtype) -> Tensor:
        """Return float[rows, 1, tokens, slots]: 0 where a token sees a slot, the type's lowest number elsewhere."""
        slots = torch.arange(self.capacity, device=self.positions.device)
        hidden = slots > self.positions[:, None, :, None]
        return torch.zeros(hidden.shape, dtype=dtype, device=hidden.device).masked_fill_(hidden, torch.finfo(dtype).min)


class SlotLayer(CacheLayerMixin):  # type: ignore[misc]
    """One layer's keys and values, float[rows, heads, slots, dim]."""

    def __init__(self, places: Places) -> None:
        """Start empty."""
        super().__init__()
        self._places = places

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Make room; never-written slots are zero, because 0 x NaN would be NaN."""
        size, slots = self._places.size, self._places.capacity
        self.keys, self.values = (
            states.new_zeros(size, states.shape[1], slots, states.shape[3]) for states in (key_states, value_states)
        )
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Write this pass's keys and values, and return all of its rows."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        elif self.keys.shape[2] < self._places.capacity:
            self.keys, self.values = (self._longer(states) for states in (self.keys, self.values))
        return self._written(self.keys, key_states), self._written(self.values, value_states)

    def _written(self, kept: Tensor, new: Tensor) -> Tensor:
        flat, dim = self._places.flat(new.shape[1]), new.shape[-1]
        kept.view(-1, dim).index_copy_(0, flat, new.reshape(-1, dim))
        return kept if self._places.rows is None else kept[self._places.rows]

    def _longer(self, states: Tensor) -> Tensor:
        rows, heads, slots, dim = states.shape
        return torch.cat([states, states.new_zeros(rows, heads, self._places.capacity - slots, dim)], dim=2)

    def select(self, rows: Tensor) -> None:
        """Keep these rows, in this order; a row may come several times."""
        if self.is_initialized:
            self.keys, self.values = self.keys[rows], self.values[rows]

    def get_seq_length(self) -> int:
        """Number of slots: positions are always given, so that nothing is derived from it."""
        return self._places.capacity

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:  # noqa: ARG002 - the interface has it
        """Number of slots, and the first one; masks are always given, too."""
        return self._places.capacity, 0

    def get_max_length(self) -> int:
        """No limit."""
        return -1


class SlotCache(Cache):  # type: ignore[misc]
    """The cache of all layers.

    Attributes:
        places: Where the running forward pass writes; set it before each.

    Args:
        size: Rows, >= 1.
    """

    def __init__(self, size: int) -> None:
        """Start empty; layers come as the model asks for them."""
        self.places = Places(size)
        super().__init__(layer_class_to_replicate=lambda: SlotLayer(self.places))

    def select(self, rows: Tensor) -> None:
        """Keep these rows in every layer."""
        self.places.size = len(rows)
        for layer in self.layers:
            layer.select(rows)

    @property
    def token_bytes(self) -> int:
        """Memory of the keys and values of one token of one row."""
        return sum(states[0, :, 0].nbytes for layer in self.layers for states in (layer.keys, layer.values))
