"""Attention by two batched products, for transformers' modules on a CPU.

torch's fused attention there is made for many queries: with one a row, as a decoding step has it, it takes up to three times
as long. With many, as in reading, it takes 0.6 to 1.5 times as long, but its sums over more than 192 slots depend on how many
slots there are, and a row's bits on the longest row (torch 2.13).
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

NAME = "products"

SUMMED = 128
"""Most slots over which a product of several queries sums at once: it cuts sums of more than 192 by their length, and the
bits of a row would depend on the longest row (measured: torch 2.13, MKL, AVX-512)."""


def attend(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **settings: Any
) -> tuple[Tensor, None]:
    """Return float[rows, queries, heads, dim]: transformers' `sdpa`, but by products where there is a mask.

    Args:
        module: The attention layer.
        query: float[rows, heads, queries, dim].
        key: float[rows, groups, slots, dim], `heads` a multiple of `groups`.
        value: float[rows, groups, slots, dim].
        attention_mask: float[rows, 1, queries, slots], to be added to the scores.
        settings: More of transformers' interface; `scaling` is what scores are multiplied with.
    """
    if attention_mask is None or settings.get("position_bias") is not None:
        made: tuple[Tensor, None] = sdpa_attention_forward(module, query, key, value, attention_mask, **settings)
        return made
    rows, heads, queries, dim = query.shape
    groups, scaling = key.shape[1], settings.get("scaling") or dim**-0.5
    grouped = query.reshape(rows * groups, -1, dim) * scaling
    scores = torch.bmm(grouped, key.flatten(0, 1).transpose(1, 2)).view(rows, heads, queries, -1)
    weights = scores.add_(attention_mask).softmax(-1).view(rows * groups, -1, key.shape[2])
    return summed(weights, value.flatten(0, 1)).view(rows, heads, queries, dim).transpose(1, 2), None


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
