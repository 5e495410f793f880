"""Causal attention among the tokens of each row of a batch, forward and backward written out. Only hosts import this."""

from __future__ import annotations

import torch
from torch import Tensor

from adapters.local.llama import Turning, turn
from adapters.local.packs.text import Asking, Text

Heads = tuple[int, int, int, int]
"""What a token has for attention: kinds of numbers, groups of heads, heads of a group, numbers of a head."""


class Attention:
    """What tokens see of their rows.

    By plain products and a softmax. For ten rows of 26 tokens these take 0.7 of the time of torch's fused kernel, of 55 tokens
    0.8, of 128 as long or longer (forward and backward, looking from every token; torch 2.13); and fewer tokens may look.

    Args:
        turning: The model's.
        scaling: What scores are multiplied with.
    """

    def __init__(self, turning: Turning, scaling: float) -> None:
        """Keep what all batches need."""
        self._scaling = scaling
        self._asked: Heads = (1, turning.groups, turning.heads // turning.groups, turning.dim)
        self._looked_at: Heads = (2, turning.groups, 1, turning.dim)
        self._sizes = [turning.sizes[0], sum(turning.sizes[1:])]

    def forward(self, numbers: Tensor, text: Text, asking: Asking) -> Tensor:
        """Return float[asking, heads * dim], what the tokens that ask see.

        Args:
            numbers: float[tokens, queries + keys + values]; spoilt.
            text: The batch.
            asking: Who asks.
        """
        turn(numbers, text.turns)
        queries, others = torch.split(numbers, self._sizes, dim=1)
        (self._query,) = _by_head(queries.index_select(0, asking.spread).mul_(self._scaling), text.rows, self._asked)
        self._key, self._value = _by_head(others.index_select(0, text.spread), text.rows, self._looked_at)
        scores = torch.bmm(self._query, self._key.transpose(1, 2))
        scores.view(text.rows, -1, *asking.hidden.shape[1:]).add_(asking.hidden[:, None])
        self._shares = torch.softmax(scores, dim=2)
        seen = torch.bmm(self._shares, self._value)
        return _by_token(seen, text.rows, self._asked).index_select(0, asking.places)

    def backward(self, out: Tensor, text: Text, asking: Asking) -> Tensor:
        """Return float[tokens, queries + keys + values], the gradient of `numbers`, for that of what `forward` returned."""
        padded = out.new_zeros(len(asking.spread), out.shape[1]).index_copy_(0, asking.places, out)
        (seen,) = _by_head(padded, text.rows, self._asked)
        by_shares = torch.bmm(seen, self._value.transpose(1, 2))
        scores = torch.ops.aten._softmax_backward_data(by_shares, self._shares, 2, torch.float32)  # noqa: SLF001 - its name
        looked_at = torch.empty(2, *self._key.shape)
        torch.bmm(scores.transpose(1, 2), self._query, out=looked_at[0])
        torch.bmm(self._shares.transpose(1, 2), seen, out=looked_at[1])
        asked = torch.bmm(scores, self._key).mul_(self._scaling)
        made = out.new_zeros(len(text.ids), sum(self._sizes))
        queries, others = torch.split(made, self._sizes, dim=1)
        queries.index_add_(0, asking.spread, _by_token(asked, text.rows, self._asked))
        others.index_add_(0, text.spread, _by_token(looked_at, text.rows, self._looked_at))
        turn(made, text.turns.conj())
        return made


def _by_head(padded: Tensor, rows: int, heads: Heads) -> Tensor:
    """Return float[kinds, rows * groups, heads * width, dim] of float[rows * width, kinds * groups * heads * dim]."""
    kinds, groups, _, dim = heads
    return padded.view(rows, -1, *heads).permute(2, 0, 3, 4, 1, 5).reshape(kinds, rows * groups, -1, dim)


def _by_token(parts: Tensor, rows: int, heads: Heads) -> Tensor:
    """The way back."""
    kinds, groups, each, dim = heads
    apart = parts.view(kinds, rows, groups, each, -1, dim)
    return apart.permute(1, 4, 0, 2, 3, 5).reshape(rows * apart.shape[4], -1)
