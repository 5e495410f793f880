"""Several LoRA adapters on one frozen base model, side by side: member k owns the k-th of equal blocks of rows.

`y = x W + s_k (x A_k) B_k` by one matrix product for the base and two batched ones for the adapters of one rank (the layout
of Punica, arXiv 2310.18547, and mLoRA, arXiv 2312.02515, without their kernels). Members never mix: each row sees one
member's weights, and a member that overflows spoils its own rows alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn

from adapters.local.lora import Adapter


@dataclass(slots=True)
class Block:
    """Neighbouring members of one rank, and their weights in one piece of memory.

    Attributes:
        members: Which ones.
        scaling: float[members, 1, 1].
        weights: float[members, numbers]: each member's A and B of every module, flat, one after another.
        grads: Their gradients, same shape; None unless trainable.
        leaves: Where in `numbers` each A and each B lies, in the model's order.
    """

    members: slice
    scaling: Tensor
    weights: Tensor
    grads: Tensor | None
    leaves: list[slice] = field(default_factory=list)


@dataclass(slots=True)
class Term:
    """What one block of members adds to one layer.

    Attributes:
        block: The block.
        a: float[members, rank, in], a view of the block's weights.
        b: float[members, out, rank], another.
        grad_a: The gradient of `a`, a view of the block's gradients; None unless trainable.
        grad_b: The gradient of `b`.
    """

    block: Block
    a: Tensor
    b: Tensor
    grad_a: Tensor | None
    grad_b: Tensor | None


@dataclass(slots=True)
class Pass:
    """What the layers must know of a forward and backward pass in training.

    Attributes:
        tokens: Tokens of all members, padding included.
        fresh: Whether gradients are written; else they are added to what is there.
        masks: Draws the dropout of the next layer: takes the layer's fan-in, and returns float[members * rows, length, in]
            of 0 and 1 / (1 - p), or None without dropout.
    """

    tokens: int
    fresh: bool
    masks: Callable[[int], Tensor] | None


class StackedLinear(nn.Module):
    """A frozen linear layer with one low-rank term a member.

    Args:
        linear: The base model's layer.
        terms: The members' terms, in order.
        stack: The stack that they belong to.
    """

    def __init__(self, linear: nn.Module, terms: Sequence[Term], stack: Stack) -> None:
        """Wrap the layer."""
        super().__init__()
        self.linear = linear
        self.terms = terms
        self.stack = stack

    def forward(self, x: Tensor) -> Tensor:
        """Return `x W + s_k (x A_k) B_k` for x: float[members * rows, ..., in]."""
        plain: Tensor = self.linear(x)
        if self.stack.under_way is not None:
            inputs = plain, x, self.stack.gate, self, self.stack.under_way
            trained: Tensor = _Trained.apply(*inputs)  # type: ignore[no-untyped-call] # torch's own lack
            return trained
        wide, rows = (tensor.reshape(self.stack.members, -1, tensor.shape[-1]) for tensor in (plain, x))
        for term in self.terms:
            own = rows[term.block.members].to(term.a.dtype)
            _add(wide, torch.bmm(own, term.a.transpose(1, 2)).mul_(term.block.scaling), term)
        return plain


class _Trained(torch.autograd.Function):
    """The low-rank terms alone, added in place; the gradients of A and B are written where the stack keeps them.

    What lies between A and B is kept as float[members, rank, tokens]: the products are up to five times as quick so.
    """

    @staticmethod
    def forward(ctx: Any, plain: Tensor, x: Tensor, _: Tensor, layer: StackedLinear, under_way: Pass) -> Tensor:
        """Return `plain` with the terms added; the gate has autograd come by when x needs no gradient."""
        members = layer.stack.members
        if x.numel() != under_way.tokens * x.shape[-1]:
            message = "a layer of this model does not see every token of every row (routed experts?)"
            raise ValueError(f"{message}; its adapters cannot train as a pack: use tune.backend: trl")
        wide, rows = (tensor.view(members, -1, tensor.shape[-1]) for tensor in (plain, x.contiguous()))
        mask = under_way.masks(x.shape[-1]).view_as(rows) if under_way.masks else None
        lows = []
        for term in layer.terms:
            low = torch.bmm(term.a, _own(rows, mask, term).transpose(1, 2)).mul_(term.block.scaling)
            _add(wide, low.transpose(1, 2), term)
            lows.append(low)
        ctx.mark_dirty(plain)
        ctx.save_for_backward(rows)
        ctx.layer, ctx.under_way, ctx.lows, ctx.mask, ctx.shape = layer, under_way, lows, mask, x.shape
        return plain

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor, Tensor | None, None, None, None]:
        """Collect the gradients of A and B, and return those of `plain` and x."""
        layer, under_way, mask = ctx.layer, ctx.under_way, ctx.mask
        (rows,) = ctx.saved_tensors
        out = outer[0].contiguous()
        inner = torch.empty_like(rows) if ctx.needs_input_grad[1] else None
        wide = out.view(layer.stack.members, -1, out.shape[-1])
        for term, low in zip(layer.terms, ctx.lows, strict=True):
            above = wide[term.block.members].to(term.b.dtype)
            down = torch.bmm(term.b.transpose(1, 2), above.transpose(1, 2)).mul_(term.block.scaling)
            _collect(term.grad_b.transpose(1, 2), low, above, fresh=under_way.fresh)
            _collect(term.grad_a, down, _own(rows, mask, term), fresh=under_way.fresh)
            if inner is not None:
                _lead_back(inner[term.block.members], down, mask, term)
        return out, None if inner is None else inner.view(ctx.shape), None, None, None


def _own(rows: Tensor, mask: Tensor | None, term: Term) -> Tensor:
    return _masked(rows[term.block.members].to(term.a.dtype), mask, term)


def _masked(rows: Tensor, mask: Tensor | None, term: Term) -> Tensor:
    return rows if mask is None else rows * mask[term.block.members]


def _add(wide: Tensor, low: Tensor, term: Term) -> None:
    """Add `low B` to the members' rows in place."""
    target, b = wide[term.block.members], term.b.transpose(1, 2)
    if target.dtype == low.dtype:
        target.baddbmm_(low, b)
    else:
        target.add_(torch.bmm(low, b))  # summed in the adapters' type, then rounded once to the base's, as PEFT does


def _lead_back(inner: Tensor, down: Tensor, mask: Tensor | None, term: Term) -> None:
    """Write `down A`, the gradient of the members' rows, into `inner`."""
    if mask is None and inner.dtype == down.dtype:
        torch.bmm(down.transpose(1, 2), term.a, out=inner)  # memory for a new tensor costs more than the product
    else:
        inner.copy_(_masked(torch.bmm(down.transpose(1, 2), term.a), mask, term))


def _collect(grad: Tensor, left: Tensor, right: Tensor, *, fresh: bool) -> None:
    """Put the sums over tokens of `left right` into the members' gradients.

    Args:
        grad: float[members, rank, n].
        left: float[members, rank, tokens].
        right: float[members, tokens, n]; padding counts for nothing, since no loss reaches it.
        fresh: Whether gradients are written; else the sums are added to what is there.
    """
    product = torch.bmm(left, right)
    _ = grad.copy_(product) if fresh else grad.add_(product)


class Stack:
    """The members' weights, and the layers that read them.

    Attributes:
        members: Number of members.
        blocks: Their weights, by runs of equal rank: put members of one rank side by side.
        layers: The layers, by path in the base model.
        under_way: The training pass that the layers are in; None when they only infer.
        gate: A number that requires a gradient and gets none.

    Args:
        model: The base model; it is changed only inside `attached`.
        adapters: The members, at least one, all on the same linear modules.
        trainable: Whether gradients are wanted.
    """

    def __init__(self, model: Any, adapters: Sequence[Adapter], *, trainable: bool = False) -> None:
        """Copy the adapters' weights side by side."""
        self._model = model
        self._ranks = [adapter.rank for adapter in adapters]
        self._scalings = [adapter.scaling for adapter in adapters]
        first = adapters[0]
        self._shapes = {path: (first.a[path].shape[1], first.b[path].shape[0]) for path in first.a}
        self._trainable = trainable
        device, dtype = next(model.parameters()).device, first.a[next(iter(first.a))].dtype
        self.gate = torch.zeros((), device=device, requires_grad=True)
        self.under_way: Pass | None = None
        self.blocks = [self._block(run, device, dtype) for run in _runs(self._ranks)]
        self.layers: dict[str, StackedLinear] = {}
        self._lay_out()
        for member, adapter in enumerate(adapters):
            self._put(member, adapter)

    @property
    def members(self) -> int:
        """Number of members."""
        return len(self._ranks)

    def _block(self, run: slice, device: Any, dtype: Any) -> Block:
        rank = self._ranks[run.start]
        numbers = sum(rank * (fan_in + fan_out) for fan_in, fan_out in self._shapes.values())
        scaling = torch.tensor(self._scalings[run], device=device, dtype=dtype).view(-1, 1, 1)
        weights = torch.zeros(len(scaling), numbers, device=device, dtype=dtype)
        return Block(run, scaling, weights, torch.zeros_like(weights) if self._trainable else None)

    def _lay_out(self) -> None:
        """Make the layers, as views of the blocks."""
        for path, (fan_in, fan_out) in self._shapes.items():
            terms = []
            for block in self.blocks:
                rank = self._ranks[block.members.start]
                a, grad_a = _leaf(block, (rank, fan_in))
                b, grad_b = _leaf(block, (fan_out, rank))
                terms.append(Term(block, a, b, grad_a, grad_b))
            self.layers[path] = StackedLinear(self._model.get_submodule(path), terms, self)

    def _put(self, member: int, adapter: Adapter) -> None:
        for path, (a, b) in self._views(member).items():
            a.copy_(adapter.a[path])
            b.copy_(adapter.b[path])

    def _views(self, member: int) -> dict[str, tuple[Tensor, Tensor]]:
        index, place = self._place(member)
        return {path: (layer.terms[index].a[place], layer.terms[index].b[place]) for path, layer in self.layers.items()}

    def _place(self, member: int) -> tuple[int, int]:
        """Return the index of a member's block, and the member's place in it."""
        for index, block in enumerate(self.blocks):
            if member < block.members.stop:
                return index, member - block.members.start
        raise IndexError(member)

    def adapter(self, member: int) -> Adapter:
        """Return a copy of one member's weights."""
        views = self._views(member)
        return Adapter(
            self._ranks[member],
            self._scalings[member],
            {path: a.clone() for path, (a, _) in views.items()},
            {path: b.clone() for path, (_, b) in views.items()},
        )

    def weights(self, member: int) -> Tensor:
        """Return float[numbers], a member's A and B of every module: a view."""
        index, place = self._place(member)
        return self.blocks[index].weights[place]

    def gradient(self, member: int) -> Tensor:
        """Return float[numbers], the gradient of `weights(member)`: a view. Only when trainable."""
        index, place = self._place(member)
        grads = self.blocks[index].grads
        if grads is None:
            raise ValueError("this stack is not trainable")
        return grads[place]

    @contextmanager
    def training(self, under_way: Pass) -> Iterator[None]:
        """Have the layers keep what a backward pass needs, and collect gradients, while the block runs."""
        self.under_way = under_way
        try:
            yield
        finally:
            self.under_way = None

    @contextmanager
    def attached(self) -> Iterator[Any]:
        """Put the layers into the base model, yield it, and take them out again."""
        try:
            for path, layer in self.layers.items():
                self._model.set_submodule(path, layer)
            yield self._model
        finally:
            for path, layer in self.layers.items():
                self._model.set_submodule(path, layer.linear)


def _leaf(block: Block, shape: tuple[int, int]) -> tuple[Tensor, Tensor | None]:
    """Lay out the next A or B of a block's members, and return the views of its weights and gradients."""
    start = block.leaves[-1].stop if block.leaves else 0
    leaf = slice(start, start + shape[0] * shape[1])
    block.leaves.append(leaf)
    grads = None if block.grads is None else block.grads[:, leaf].view(-1, *shape)
    return block.weights[:, leaf].view(-1, *shape), grads


def _runs(ranks: Sequence[int]) -> Iterator[slice]:
    start = 0
    for _, run in groupby(ranks):
        end = start + len(list(run))
        yield slice(start, end)
        start = end
