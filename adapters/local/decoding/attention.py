"""Attention of one query a row, as a decoding step has it, by two batched products.

torch's fused attention on a CPU is made for many queries: with one it takes up to three times as long (torch 2.13).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from adapters.local.decoding.cache import LEAST_ROWS

NAME = "one_query"

SUMMED = 128
"""Most slots over which a product of several queries sums at once: it cuts sums of more than 192 by their length, and the
bits of a row would depend on the longest row (measured: torch 2.13, MKL, AVX-512)."""


def attend(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **settings: Any
) -> tuple[Tensor, None]:
    """Return float[rows, queries, heads, dim]: transformers' `sdpa`, but quicker for one query and a mask.

    Args:
        module: The attention layer.
        query: float[rows, heads, queries, dim].
        key: float[rows, groups, slots, dim], `heads` a multiple of `groups`.
        value: float[rows, groups, slots, dim].
        attention_mask: float[rows, 1, queries, slots], to be added to the scores.
        settings: More of transformers' interface; `scaling` is what scores are multiplied with.
    """
    if query.shape[2] > 1 or attention_mask is None or settings.get("position_bias") is not None:
        made: tuple[Tensor, None] = sdpa_attention_forward(module, query, key, value, attention_mask, **settings)
        return made
    rows, heads, _, dim = query.shape
    groups, scaling = key.shape[1], settings.get("scaling") or dim**-0.5
    grouped = query.reshape(rows * groups, heads // groups, dim) * scaling
    scores = torch.bmm(grouped, key.flatten(0, 1).transpose(1, 2)).view(rows, heads, -1)
    weights = scores.add_(attention_mask[:, 0]).softmax(-1).view(rows * groups, heads // groups, -1)
    return summed(weights, value.flatten(0, 1)).view(rows, 1, heads, dim), None


def summed(weights: Tensor, values: Tensor) -> Tensor:
    """Return float[rows, queries, dim], the product of float[rows, queries, slots] and float[rows, slots, dim]."""
    if weights.shape[1] < LEAST_ROWS:
        return torch.bmm(weights, values)
    made = torch.bmm(weights[:, :, :SUMMED], values[:, :SUMMED])
    for start in range(SUMMED, values.shape[1], SUMMED):
        made.baddbmm_(weights[:, :, start : start + SUMMED], values[:, start : start + SUMMED])
    return made


AttentionInterface.register(NAME, attend)


@contextmanager
def quick(model: Any) -> Iterator[None]:
    """Have a model on a CPU use `attend` where it uses `sdpa`; masks must be given with four dimensions."""
    if model.device.type != "cpu" or model.config._attn_implementation != "sdpa":  # noqa: SLF001 - it has no other name
        yield
        return
    model.set_attn_implementation(NAME)
    try:
        yield
    finally:
        model.set_attn_implementation("sdpa")
