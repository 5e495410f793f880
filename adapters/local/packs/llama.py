"""The gradients of one run's batch on a small Llama on a CPU, forward and backward written out. Only hosts import this.

The numbers are those of `transformers.models.llama.modeling_llama`, PEFT's LoRA and TRL's loss, up to the rounding of
float32. What differs is what is not computed: tokens lie one after another, padded for attention alone, and what rows have
in common at their beginnings lies there once, unless dropout tells it apart; adapters are folded into the weights, unless
dropout stands between; the last layer's second half sees only the positions that the loss looks at. Each run's batch goes
through alone, so that it stays in a core's own cache and its numbers depend on no other run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import silu

from adapters.local.llama import LINEARS, Turning, layer_prefix, linear_paths, scales
from adapters.local.packs.attention import Attention
from adapters.local.packs.loss import cross_entropy
from adapters.local.packs.member import LANES, SHORT, Member
from adapters.local.packs.text import Text
from adapters.local.stacked import Leaf

LONGEST = SHORT - LANES
"""Tokens of a padded row up to which runs are computed here: from about there on, transformers' modules with torch's fused attention
are quicker. Runs that may share a pack must all be on one side, and from `SHORT` on only runs of one length share one."""

Leaves = Mapping[str, Leaf]
"""A run's low-rank terms, by their module's path; modules that are not adapted are missing."""


@dataclass(slots=True)
class _Term:
    """A run's low-rank term of one of several joined modules.

    Attributes:
        leaf: Its weights and gradients.
        columns: The module's outputs among the joined ones.
        order: The order in which they are there; None as in the model.
        b: float[out, rank]: B in that order.
        mask: float[tokens, in]: the dropout of the running pass; None without.
    """

    leaf: Leaf
    columns: slice
    order: Tensor | None
    b: Tensor
    mask: Tensor | None = None


class Linears:
    """Neighbouring linear modules that read the same numbers, as one product with a run's low-rank terms.

    Args:
        layer: The base model's layer.
        prefix: Where it is in the model.
        paths: Where the modules are in the layer; they have no biases.
        orders: The order of each one's outputs; None as they are.
    """

    def __init__(self, layer: Any, prefix: str, paths: Sequence[str], orders: Sequence[Tensor | None]) -> None:
        """Join the base weights."""
        modules = [layer.get_submodule(path) for path in paths]
        weights = [_ordered(module.weight.detach(), order) for module, order in zip(modules, orders, strict=True)]
        self._plain = torch.cat(weights)
        self._folded = self._plain.clone()
        ends = list(accumulate(len(weight) for weight in weights))
        columns = [slice(end - len(weight), end) for end, weight in zip(ends, weights, strict=True)]
        self._modules = list(zip([prefix + path for path in paths], columns, orders, strict=True))

    def take(self, leaves: Leaves, *, fold: bool) -> None:
        """Take a run's terms as they are now, and fold them into the weights unless dropout stands between."""
        self._terms = [
            _Term(leaves[path], columns, order, _ordered(leaves[path].b, order))
            for path, columns, order in self._modules
            if path in leaves
        ]
        self._weight = self._folded if fold else self._plain
        if fold:
            if len(self._terms) < len(self._modules):
                self._folded.copy_(self._plain)  # another run's terms may be there
            for term in self._terms:
                part, plain = self._folded[term.columns], self._plain[term.columns]
                torch.addmm(plain, term.b, term.leaf.a, alpha=term.leaf.scaling, out=part)

    def forward(self, x: Tensor, text: Text, places: Tensor, onto: Tensor | None = None) -> Tensor:
        """Return float[tokens, out], the product, added to `onto` if given.

        Args:
            x: float[tokens, in].
            text: Draws the dropout.
            places: long[tokens]: where they are in the padded rows.
            onto: float[tokens, out].
        """
        self._x = x
        made = torch.mm(x, self._weight.T) if onto is None else torch.addmm(onto, x, self._weight.T)
        if text.draw is not None:
            for term in self._terms:
                term.mask = text.draw(x.shape[1])[places]
                low = torch.mm(term.leaf.a, (x * term.mask).T)
                made[:, term.columns].addmm_(low.T, term.b.T, alpha=term.leaf.scaling)
        return made

    def backward(self, out: Tensor, *, fresh: bool) -> None:
        """Put the gradients of A and B where they belong.

        What lies between A and B, and B's gradient, are made as float[rank, ...]: the products are up to ten times as quick.

        Args:
            out: float[tokens, out]: the gradient of what `forward` returned.
            fresh: Whether gradients are written; else they are added to.
        """
        for term in self._terms:
            leaf, above = term.leaf, out[:, term.columns]
            x = self._x if term.mask is None else self._x * term.mask
            by_b = torch.mm(torch.mm(leaf.a, x.T), above)
            _put(leaf.grad_b, by_b.T.mul(leaf.scaling), term.order, fresh=fresh)
            down = torch.mm(term.b.T, above.T)
            leaf.grad_a.addmm_(down, x, beta=0 if fresh else 1, alpha=leaf.scaling)

    def inner(self, out: Tensor) -> Tensor:
        """Return float[tokens, in], the gradient of x."""
        made = torch.mm(out, self._weight)
        for term in self._terms:
            if term.mask is not None:
                by_low = torch.mm(out[:, term.columns], term.b)
                made.addcmul_(torch.mm(by_low, term.leaf.a), term.mask, value=term.leaf.scaling)
        return made


class Norm:
    """Root mean square normalisation.

    Args:
        norm: The base model's.
    """

    def __init__(self, norm: Any) -> None:
        """Keep its weight."""
        self._weight, self._epsilon = norm.weight.detach(), norm.variance_epsilon

    def forward(self, x: Tensor) -> Tensor:
        """Return float[tokens, width] for x of the same shape."""
        self._x, self._scale = x, scales(x, self._epsilon)
        return (x * self._scale).mul_(self._weight)

    def backward(self, out: Tensor, onto: Tensor) -> None:
        """Add the gradient of x to `onto`, float[tokens, width]; `out`, that of what `forward` returned, is spoilt."""
        out.mul_(self._weight)
        along = (out * self._x).sum(1, keepdim=True).mul_(self._scale.pow(3)).div_(-out.shape[1])
        onto.addcmul_(out, self._scale).addcmul_(self._x, along)


class Layer:
    """One decoder layer.

    Args:
        layer: The base model's.
        prefix: Where it is in the model.
        turning: The model's.
    """

    def __init__(self, layer: Any, prefix: str, turning: Turning) -> None:
        """Join its weights."""
        query, key, value, writes, gate, up, narrows = LINEARS
        split = turning.sizes[0]
        orders = [turning.order[:split], turning.order[split:] - split, None]
        self._before, self._between = Norm(layer.input_layernorm), Norm(layer.post_attention_layernorm)
        self._reads = Linears(layer, prefix, (query, key, value), orders)
        self._attends = Attention(turning, layer.self_attn.scaling)
        self._writes = Linears(layer, prefix, (writes,), [None])
        self._widens = Linears(layer, prefix, (gate, up), [None, None])
        self._narrows = Linears(layer, prefix, (narrows,), [None])

    def take(self, leaves: Leaves, *, fold: bool) -> None:
        """Take a run's terms as they are now."""
        for linears in (self._reads, self._writes, self._widens, self._narrows):
            linears.take(leaves, fold=fold)

    def forward(self, x: Tensor, text: Text, *, last: bool) -> Tensor:
        """Return float[tokens, width] for x of the same shape, or of the answers alone if nobody looks at the others."""
        self._asking = text.answers if last else text.every
        numbers = self._reads.forward(self._before.forward(x), text, text.every.padded)
        seen, places = self._attends.forward(numbers, text, self._asking), self._asking.padded
        x = self._writes.forward(seen, text, places, x[text.answers.tokens] if last else x)
        wide = self._widens.forward(self._between.forward(x), text, places)
        self._gate, self._up = wide.chunk(2, dim=1)
        self._open = silu(self._gate)
        return self._narrows.forward(self._open * self._up, text, places, x)

    def backward(self, out: Tensor, text: Text, *, fresh: bool, first: bool) -> Tensor:
        """Return the gradient of x for that of what `forward` returned, which is spoilt; of no use in the first layer.

        Args:
            out: The gradient.
            text: The batch.
            fresh: Whether the terms' gradients are written; else they are added to.
            first: Whether nobody asks for the gradient of x, because embeddings are frozen.
        """
        self._narrows.backward(out, fresh=fresh)
        wide = self._gated(self._narrows.inner(out))
        self._widens.backward(wide, fresh=fresh)
        self._between.backward(self._widens.inner(wide), out)
        self._writes.backward(out, fresh=fresh)
        numbers = self._attends.backward(self._writes.inner(out), text, self._asking)
        self._reads.backward(numbers, fresh=fresh)
        if first:
            return out
        if self._asking is text.answers:
            out = out.new_zeros(len(text.ids), out.shape[1]).index_copy_(0, text.answers.tokens, out)
        self._before.backward(self._reads.inner(numbers), out)
        return out

    def _gated(self, out: Tensor) -> Tensor:
        """Return float[tokens, gate + up], the gradients of both, for that of their product, which is spoilt."""
        wide = out.new_empty(len(out), 2 * out.shape[1])
        gate, up = wide.chunk(2, dim=1)
        torch.mul(out, self._open, out=up)
        torch.ops.aten.silu_backward.grad_input(out.mul_(self._up), self._gate, grad_input=gate)
        return wide


class WrittenOut:
    """A model whose gradients are computed here.

    Args:
        model: A model for which `adapters.local.llama.is_written_out` holds.
    """

    def __init__(self, model: Any) -> None:
        """Join the weights of its layers."""
        self._turning = Turning(model)
        self._words = model.model.embed_tokens.weight.detach()
        layers = enumerate(model.model.layers)
        self._layers = [Layer(layer, layer_prefix(index), self._turning) for index, layer in layers]
        self._norm = Norm(model.model.norm)
        self._head = model.lm_head.weight.detach()
        self._paths = linear_paths(model)

    def covers(self, member: Member) -> bool:
        """Tell whether a run's rows are short enough and it adapts no other modules than those of the layers."""
        return member.rows.ids.shape[1] <= LONGEST and self._paths.issuperset(member.adapter.a)

    @torch.no_grad()
    def gradients(self, member: Member, leaves: Leaves, batches: Sequence[Sequence[int]], share: float) -> float:
        """Leave the gradients of one step in `leaves`, and return the sum of the answer tokens' losses in nats.

        Args:
            member: The run.
            leaves: Its weights and gradients.
            batches: Numbers of the rows of each batch.
            share: What one token counts for.
        """
        for layer in self._layers:
            layer.take(leaves, fold=member.dice is None)
        total = 0.0
        for turn, batch in enumerate(batches):
            text = Text.of(member, batch, self._turning)
            total += self._pass(text, share, fresh=turn == 0)
        return total

    def _pass(self, text: Text, share: float, *, fresh: bool) -> float:
        x = self._words[text.ids]
        for index, layer in enumerate(self._layers, 1):
            x = layer.forward(x, text, last=index == len(self._layers))
        total, slopes = cross_entropy(torch.mm(self._norm.forward(x), self._head.T), text.targets)
        out = torch.zeros_like(x)
        self._norm.backward(torch.mm(slopes.mul_(share), self._head), out)
        for index, layer in reversed(list(enumerate(self._layers))):
            out = layer.backward(out, text, fresh=fresh, first=index == 0)
        return float(total.double().sum())


def _ordered(rows: Tensor, order: Tensor | None) -> Tensor:
    return rows if order is None else rows[order]


def _put(grad: Tensor, found: Tensor, order: Tensor | None, *, fresh: bool) -> None:
    """Write or add `found`, whose rows are in `order`, to a gradient."""
    if order is None:
        _ = grad.copy_(found) if fresh else grad.add_(found)
    else:
        _ = grad.index_copy_(0, order, found) if fresh else grad.index_add_(0, order, found)
