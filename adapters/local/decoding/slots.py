"""Keys and values for `llama.py`, and attention over them by batched products: in reading, and with one query a row.

As in `cache.py`, token i of a row lies in slot i, and the number of slots is a multiple of `BLOCK`: on a CPU, what a row
sees is the same, bit for bit, in any company. For short rows these products take no longer than torch's fused attention,
and half as long as that with a mask (100 rows of 16 queries: 0.8 ms, 0.7 ms and 1.7 ms; torch 2.13).
"""

from __future__ import annotations

import torch
from torch import Tensor

from adapters.local.decoding.attention import summed
from adapters.local.decoding.cache import BLOCK, LEAST_SLOTS
from adapters.local.llama import Turning

SMALL_PRODUCT = 400
"""Multiplications of a matrix product below which torch takes another kernel, with other sums (torch 2.13)."""


class Slots:
    """Keys and values of rows, token i of a row in slot i; see `cache.py`. Slots never written are zero.

    Attributes:
        kept: For each layer, float[2, rows, groups, slots, dim]: keys, then values.

    Args:
        layers: How many.
        rows: How many.
        turning: Knows the sizes.
        tokens: Most tokens of a row for now.
    """

    def __init__(self, layers: int, rows: int, turning: Turning, tokens: int) -> None:
        """Make room."""
        shape = (2, rows, turning.groups, slots_for(tokens, turning.dim), turning.dim)
        self.kept = [torch.zeros(shape) for _ in range(layers)]

    @property
    def slots(self) -> int:
        """Slots of a row."""
        return self.kept[0].shape[3]

    @property
    def token_bytes(self) -> int:
        """Memory of the keys and values of one token of one row."""
        return sum(kept[:, 0, :, 0].nbytes for kept in self.kept)

    def reach(self, tokens: int) -> None:
        """Make more room where rows have more tokens than before."""
        *shape, slots, dim = self.kept[0].shape
        more = slots_for(tokens, dim) - slots
        if more > 0:
            self.kept = [torch.cat([kept, kept.new_zeros(*shape, more, dim)], 3) for kept in self.kept]

    def places(self, rows: Tensor, positions: Tensor) -> Tensor:
        """Return where the keys and values of tokens lie, as `write` wants it.

        Args:
            rows: long[tokens].
            positions: long[tokens].
        """
        _, size, groups, slots, _ = self.kept[0].shape
        lanes = (torch.arange(2)[:, None] * size * groups + torch.arange(groups)).flatten()
        return ((lanes + rows[:, None] * groups) * slots + positions[:, None]).flatten()

    def write(self, layer: int, places: Tensor, new: Tensor) -> None:
        """Write float[tokens, keys + values] into one layer."""
        dim = self.kept[layer].shape[-1]
        self.kept[layer].view(-1, dim).index_copy_(0, places, new.reshape(-1, dim))

    def select(self, rows: Tensor) -> None:
        """Keep these rows, in this order; a row may come several times."""
        self.kept = [kept.index_select(1, rows) for kept in self.kept]


def slots_for(tokens: int, dim: int) -> int:
    """Return how many slots a row of so many tokens needs, with heads of `dim` numbers."""
    return -(-max(LEAST_SLOTS, -(-SMALL_PRODUCT // dim), tokens) // BLOCK) * BLOCK


def unseen_by(positions: Tensor, slots: int) -> Tensor:
    """Return float[..., slots], what scores of queries at long[...] positions get added: 0 where they see, else -inf."""
    return torch.where(torch.arange(slots) > positions[..., None], float("-inf"), 0.0)


def attended(queries: Tensor, keys: Tensor, values: Tensor, unseen: Tensor) -> Tensor:
    """Return float[rows, length, heads * dim], what queries see.

    Args:
        queries: float[rows, length, heads * dim], scaled.
        keys: float[rows, groups, slots, dim].
        values: float[rows, groups, slots, dim].
        unseen: float[rows, length, slots], as `unseen_by` returns it.
    """
    rows, groups, slots, dim = keys.shape
    length = queries.shape[1]
    grouped = queries.view(rows, length, groups, -1, dim).permute(0, 2, 3, 1, 4)
    scores = torch.bmm(grouped.reshape(rows * groups, -1, dim), keys.flatten(0, 1).transpose(1, 2)).view(
        rows, -1, length, slots
    )
    weights = scores.add_(unseen[:, None]).softmax(-1).view(rows * groups, -1, slots)
    seen = summed(weights, values.flatten(0, 1)).view(rows, groups, -1, length, dim)
    return seen.permute(0, 3, 1, 2, 4).reshape(rows, length, -1)
