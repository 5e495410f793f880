"""Several LoRA adapters on one frozen base model, side by side: adapter k owns the k-th of equal blocks of rows.

`y = x W + s_k (x A_k) B_k` by one matrix product for the base and two small ones for each adapter (the layout of Punica,
arXiv 2310.18547, and mLoRA, arXiv 2312.02515, without their kernels). Adapters never mix: each row sees one adapter's
weights, and one that overflows spoils its own rows alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from adapters.local.lora import Adapter


@dataclass(frozen=True, slots=True)
class UnderWay:
    """What the layers must know of a forward pass in training.

    Attributes:
        tokens: Tokens of all rows, padding included.
        masks: Draws the dropout of the next layer: takes the layer's fan-in, and returns float[rows, length, in] of 0 and
            1 / (1 - p); None without dropout.
    """

    tokens: int
    masks: Callable[[int], Tensor] | None


class StackedLinear(nn.Module):
    """A frozen linear layer with one low-rank term for each adapter.

    Args:
        linear: The base model's layer.
        terms: A: float[rank, in], B: float[out, rank] and the scaling of each adapter.
        under_way: The pass in training that it is in; None when it only infers.
    """

    def __init__(
        self, linear: nn.Module, terms: Sequence[tuple[Tensor, Tensor, float]], under_way: UnderWay | None
    ) -> None:
        """Wrap the layer."""
        super().__init__()
        self.linear = linear
        self.terms = terms
        self.under_way = under_way

    def forward(self, x: Tensor) -> Tensor:
        """Return `x W + s_k (x A_k) B_k` for x: float[rows, ..., in].

        Raises:
            ValueError: In training, when x is not every token of every row.
        """
        plain: Tensor = self.linear(x)
        wide, rows = (tensor.reshape(len(self.terms), -1, tensor.shape[-1]) for tensor in (plain, x))
        if self.under_way is not None:
            if x.numel() != self.under_way.tokens * x.shape[-1]:
                message = "a layer of this model does not see every token of every row (routed experts?)"
                raise ValueError(f"{message}; its adapters cannot train as a pack: use tune.backend: trl")
            if self.under_way.masks is not None:
                rows = rows * self.under_way.masks(x.shape[-1]).view_as(rows)
        blocks = [_added(own, read, *term) for own, read, term in zip(wide, rows, self.terms, strict=True)]
        return (torch.cat(blocks) if len(blocks) > 1 else blocks[0]).view_as(plain)


def _added(wide: Tensor, rows: Tensor, a: Tensor, b: Tensor, scaling: float) -> Tensor:
    """Return one block of rows, float[tokens, out], with an adapter's term added."""
    low = rows.to(a.dtype) @ a.T * scaling
    if wide.dtype == low.dtype:
        return torch.addmm(wide, low, b.T)
    return (wide + low @ b.T).to(
        wide.dtype
    )  # summed in the adapter's type, then rounded once to the base's, as PEFT does


@contextmanager
def stacked(model: Any, adapters: Sequence[Adapter], under_way: UnderWay | None = None) -> Iterator[Any]:
    """Put adapters on a model while the block runs, and yield it.

    Args:
        model: The base model.
        adapters: At least one, all on the same linear modules. Each matrix goes to the device of the module that it adapts: a model
            may be spread over several, and what reaches a module is on the module's.
        under_way: The pass in training that the block is; None where the model only infers.
    """
    plain = {path: model.get_submodule(path) for path in adapters[0].a}
    try:
        for path, linear in plain.items():
            place = next(linear.parameters()).device
            terms = [(one.a[path].to(place), one.b[path].to(place), one.scaling) for one in adapters]
            model.set_submodule(path, StackedLinear(linear, terms, under_way))
        yield model
    finally:
        for path, linear in plain.items():
            model.set_submodule(path, linear)
