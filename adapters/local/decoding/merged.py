"""Adapters folded into copies of a small base model's weights, side by side: member k owns the k-th of equal blocks of rows.

`y = x (W + s_k A_k B_k)` by one batched product. Where the copies are small this is quicker than the product with W and
the two with A and B (`stacked.py`): on the stand-in by a quarter in reading, a tenth in decoding. They differ by rounding alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from adapters.local.lora import Adapter
from adapters.local.stacked import Stack

SMALL = 8 * 2**20
"""Bytes of the adapted layers up to which a CPU folds: a dozen copies, of which every token reads one, stay in its cache."""


class FoldedLinear(nn.Module):
    """A linear layer with weights of its own for each member.

    Args:
        weights: float[members, in, out].
        bias: float[out], the same for all; or None.
    """

    def __init__(self, weights: Tensor, bias: Tensor | None) -> None:
        """Keep the weights."""
        super().__init__()
        self.weights = weights
        self.bias = bias

    def forward(self, x: Tensor) -> Tensor:
        """Return each member's product for x: float[members * rows, ..., in]."""
        made = torch.bmm(x.reshape(len(self.weights), -1, x.shape[-1]), self.weights).view(*x.shape[:-1], -1)
        return made if self.bias is None else made.add_(self.bias)


class Folded:
    """The members' copies of the adapted layers; see `folds` for where they may be made.

    Args:
        model: The base model; it is changed only inside `attached`.
        adapters: The members, at least one, all on the same linear modules.
    """

    def __init__(self, model: Any, adapters: Sequence[Adapter]) -> None:
        """Fold the adapters."""
        self._parents: dict[str, tuple[Any, str, nn.Linear]] = {}
        self._layers: dict[str, FoldedLinear] = {}
        for path in adapters[0].a:
            parent, _, name = path.rpartition(".")
            linear = model.get_submodule(path)
            own = [(linear.weight + one.scaling * (one.b[path] @ one.a[path])).T for one in adapters]
            self._parents[path] = model.get_submodule(parent), name, linear
            self._layers[path] = FoldedLinear(torch.stack(own), linear.bias)

    def keep(self, members: Sequence[int]) -> None:
        """Let the others go."""
        for layer in self._layers.values():
            layer.weights = layer.weights[members]

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Put the layers into the base model, and take them out again."""
        try:
            for path, (parent, name, _) in self._parents.items():
                setattr(parent, name, self._layers[path])
            yield
        finally:
            for parent, name, linear in self._parents.values():
                setattr(parent, name, linear)


class Unfolded:
    """The same for models that are not folded: `Stack`'s layers.

    Args:
        model: The base model; it is changed only inside `attached`.
        adapters: The members, at least one, all on the same linear modules.
    """

    def __init__(self, model: Any, adapters: Sequence[Adapter]) -> None:
        """Stack the adapters."""
        self._model, self._adapters = model, adapters
        self._stack = Stack(model, adapters)

    def keep(self, members: Sequence[int]) -> None:
        """Let the others go."""
        self._adapters = [self._adapters[member] for member in members]
        self._stack = Stack(self._model, self._adapters)

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Put the layers into the base model, and take them out again."""
        with self._stack.attached():
            yield


def side_by_side(model: Any, adapters: Sequence[Adapter]) -> Folded | Unfolded:
    """Return the members' layers, folded where that is quicker: the model and the adapted modules alone decide."""
    return Folded(model, adapters) if folds(model, adapters[0]) else Unfolded(model, adapters)


def folds(model: Any, adapter: Adapter) -> bool:
    """Tell whether adapters of these modules are folded: into plain layers in float32 on a CPU, small ones."""
    layers = [model.get_submodule(path) for path in adapter.a]
    plain = all(type(layer) is nn.Linear and layer.weight.dtype == torch.float32 for layer in layers)
    return plain and model.device.type == "cpu" and sum(layer.weight.nbytes for layer in layers) <= SMALL
