"""The forward passes of a batch, written out for small models of Llama's form on a CPU; see `adapters.local.llama`.

The numbers are those of `transformers.models.llama.modeling_llama` up to the rounding of float32, at about two thirds of
the time of `passes.py`: adapters are folded into joined copies of the weights, prompts are read without padding, what
they have in common at their beginnings is read once, the last layer makes no more of them than keys and values, and what
attention reads lies as its products want it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import silu

from adapters.local.beginnings import in_equal_rows, once
from adapters.local.decoding.cache import LEAST_ROWS
from adapters.local.decoding.questions import Question, shared_heads
from adapters.local.decoding.slots import Slots, attended, slots_for, unseen_by
from adapters.local.llama import LINEARS, Turning, is_written_out, layer_prefix, linear_paths, scales, turn
from adapters.local.lora import Adapter

STRETCH = 128
"""Prompt tokens of a row in one pass: more need memory for scores by the square."""

AT_ONCE = 2048
"""Prompt tokens, all of one member, in one pass: what they become should stay in a core's own cache."""

QUERIES, KEYS, VALUES, OUTPUT, GATE, UP, DOWN = LINEARS


def takes(model: Any, modules: Iterable[str]) -> bool:
    """Tell whether a model with adapters on these modules, by path, is computed here."""
    return is_written_out(model) and linear_paths(model).issuperset(modules)


def copied(model: Any) -> int:
    """Return the bytes of the copies that are made for each member of a model that `takes` takes."""
    return sum(int(model.get_submodule(path).weight.nbytes) for path in linear_paths(model))


def _folded(
    model: Any, adapters: Sequence[Adapter] | None, prefix: str, names: Sequence[str], order: Tensor | None = None
) -> Tensor:
    """Return float[members, in, out]: the weights of modules that read the same numbers, joined, with adapters in them.

    Args:
        model: The model.
        adapters: One a member; None for one member without.
        prefix: Where the modules' layer is in the model.
        names: Where they are in it.
        order: long[rows]: how the first rows of the joined weights are put.
    """
    paths = [prefix + name for name in names]
    own = [model.get_submodule(path).weight for path in paths]
    sizes = [len(weight) for weight in own]
    places = torch.arange(sum(sizes))
    if order is not None:
        places[: len(order)] = order
    base = torch.cat(own)[places].T.contiguous()
    if adapters is None:
        return base[None]
    made = base.expand(len(adapters), -1, -1).contiguous()
    starts = [sum(sizes[:index]) for index in range(len(sizes))]
    for target, adapter in zip(made, adapters, strict=True):
        for path, start, size in zip(paths, starts, sizes, strict=True):
            if path in adapter.a:
                b = adapter.b[path][places[start : start + size] - start]  # order moves rows inside of a module alone
                target[:, start : start + size].addmm_(adapter.a[path].T, b.T, alpha=adapter.scaling)
    return made


@dataclass(slots=True)
class Layer:
    """One layer's weights; those of products are float[members, in, out].

    Attributes:
        first: float[width], the norm before attention.
        reads: To queries, keys and values, side by side, in `Turning.order`.
        writes: Of attention's output.
        second: float[width], the norm before the feed-forward half.
        widens: To its gate and its other factor, side by side.
        narrows: Back.
    """

    first: Tensor
    reads: Tensor
    writes: Tensor
    second: Tensor
    widens: Tensor
    narrows: Tensor

    def of(self, members: Any) -> Layer:
        """Return the layer of these members: a slice, or a list of indices."""
        products = (self.reads, self.writes, self.widens, self.narrows)
        reads, writes, widens, narrows = (weights[members] for weights in products)
        return Layer(self.first, reads, writes, self.second, widens, narrows)


class Scratch:
    """Memory that passes write into again and again: new memory is not in the core's cache, and products wait for it."""

    def __init__(self) -> None:
        """Start with none."""
        self._kept: dict[str, Tensor] = {}

    def take(self, name: str, rows: int, width: int) -> Tensor:
        """Return float[rows, width], with what was left there; what was taken under this name before is lost."""
        kept = self._kept.get(name)
        if kept is None or kept.numel() < rows * width:
            kept = self._kept[name] = torch.empty(rows * width)
        return kept[: rows * width].view(rows, width)


def _normed(x: Tensor, weight: Tensor, epsilon: float, out: Tensor) -> Tensor:
    return torch.mul(x, scales(x, epsilon), out=out).mul_(weight)


def _product(x: Tensor, weights: Tensor, out: Tensor) -> Tensor:
    """Write each member's product into float[tokens, out], for equal blocks of tokens x: float[tokens, in]."""
    torch.bmm(_by_member(x, weights), weights, out=_by_member(out, weights))
    return out


def _add_product(total: Tensor, x: Tensor, weights: Tensor) -> None:
    """The same, added to float[tokens, out]."""
    _by_member(total, weights).baddbmm_(_by_member(x, weights), weights)


def _by_member(x: Tensor, weights: Tensor) -> Tensor:
    return x.view(len(weights), -1, x.shape[1])


@dataclass(frozen=True, slots=True)
class Text:
    """A pass's tokens, one after another, without padding; those of a beginning that rows share, once.

    Attributes:
        ids: long[tokens].
        positions: long[tokens]: the slot of each.
        spread: long[written]: the token of each slot that is written.
        rows: long[written]: the row of the slot.
        slots: long[written]: its number.
        places: long[tokens]: the place of each token among those that ask, in rows of equal width.
        asking: long[rows, width]: the slot of each of these places; any where there is none.
    """

    ids: Tensor
    positions: Tensor
    spread: Tensor
    rows: Tensor
    slots: Tensor
    places: Tensor
    asking: Tensor


def _text(wholes: Sequence[Sequence[int]], starts: Sequence[int], ends: Sequence[int], first: int, filler: int) -> Text:
    """Lay out some tokens of neighbouring rows.

    Args:
        wholes: Each row's tokens, from the first on.
        starts: The first of them that is read in this pass.
        ends: The one after the last.
        first: The index of the first row.
        filler: A token to fill up with.
    """
    spare = max(0, LEAST_ROWS - sum(ends) + sum(starts))  # into slots that decoding writes before anyone sees them
    longest = max(range(len(ends)), key=lambda row: ends[row] - starts[row])
    ends = [end + spare if row == longest else end for row, end in enumerate(ends)]
    ids = np.full((len(wholes), max(ends)), filler)
    for own, tokens, end in zip(ids, wholes, ends, strict=True):
        own[: min(end, len(tokens))] = tokens[:end]
    column = np.arange(max(ends))
    read = (column >= np.array(starts)[:, None]) & (column < np.array(ends)[:, None])
    found = once(ids, read)
    if len(found.places) < LEAST_ROWS:
        found = once(np.arange(ids.size).reshape(ids.shape), read)
    row, slot = np.divmod(found.filled, ids.shape[1])
    own_row, positions = np.divmod(found.places, ids.shape[1])
    places, width = in_equal_rows(own_row, len(wholes), LEAST_ROWS)
    asking = np.zeros(len(wholes) * width, dtype=np.int64)
    asking[places] = positions
    return Text(
        torch.from_numpy(ids.ravel()[found.places]),
        torch.from_numpy(positions),
        torch.from_numpy(found.tokens),
        torch.from_numpy(row + first),
        torch.from_numpy(slot),
        torch.from_numpy(places),
        torch.from_numpy(asking).view(len(wholes), width),
    )


def _portions(lengths: Sequence[int], block: int) -> Iterator[tuple[int, int]]:
    """Yield the first of the rows that are read together, and the one after the last: a member's next, about `AT_ONCE` tokens."""
    for start in range(0, len(lengths), block):
        first, end = start, start + block
        while first < end:
            width = min(STRETCH, max(1, *lengths[first:end]))
            last = min(end, first + max(1, AT_ONCE // width))
            yield first, last
            first = last


class LlamaPasses:
    """Passes through a model for which `takes` holds.

    Args:
        model: The model.
        adapters: The members' adapters, all on the same modules; None for one member that is the model itself.
        filler: A token to fill up with.
    """

    def __init__(self, model: Any, adapters: Sequence[Adapter] | None, filler: int) -> None:
        """Fold the adapters."""
        self._filler, self._turning = filler, Turning(model)
        self._layers: list[Layer] = []
        self._scratch = Scratch()
        with torch.inference_mode():
            for index, layer in enumerate(model.model.layers):
                folded = partial(_folded, model, adapters, layer_prefix(index))
                own = folded([QUERIES, KEYS, VALUES], self._turning.order), folded([OUTPUT])
                wide = folded([GATE, UP]), folded([DOWN])
                norms = layer.input_layernorm.weight, layer.post_attention_layernorm.weight
                self._layers.append(Layer(norms[0], *own, norms[1], *wide))
            self._head = model.lm_head.weight.T.contiguous()[None]
        self._embeddings, self._norm = model.model.embed_tokens.weight, model.model.norm.weight
        self._epsilon, self._scaling = model.config.rms_norm_eps, model.model.layers[0].self_attn.scaling

    @property
    def token_bytes(self) -> int:
        """Ask the slots."""
        return self._slots.token_bytes

    def attached(self) -> AbstractContextManager[None]:
        """Nothing is changed in the model."""
        return nullcontext()

    def read(self, rows: Sequence[Question], block: int) -> None:
        """Read what rows share once, then the rest of each."""
        longest = max(len(row.tokens) for row in rows)
        heads = shared_heads(rows, block)
        self._slots = self._room(len(rows if heads is None else heads.tokens), longest)
        if heads is not None:
            self._pass(heads.tokens, [0] * len(heads.tokens), heads.block)
            self._slots.select(torch.tensor(heads.places))
        self._pass([row.tokens[:-1] for row in rows], [row.shared for row in rows], block)

    def _room(self, rows: int, tokens: int) -> Slots:
        slots = Slots(len(self._layers), rows, self._turning, tokens)
        self._turns = self._turning.at(torch.arange(slots.slots))
        return slots

    def _pass(self, wholes: Sequence[Sequence[int]], starts: Sequence[int], block: int) -> None:
        """Put rows of tokens into their slots, each from a slot of its own on, `block` rows a member."""
        lengths = [len(whole) - start for whole, start in zip(wholes, starts, strict=True)]
        for first, last in _portions(lengths, block):
            own, begun, member = wholes[first:last], starts[first:last], first // block
            layers = [layer.of(slice(member, member + 1)) for layer in self._layers]
            for done in range(0, max(lengths[first:last]), STRETCH):
                ends = [len(whole) for whole in own]
                reached = [min(start + done, end) for start, end in zip(begun, ends, strict=True)]
                limits = [min(start + STRETCH, end) for start, end in zip(reached, ends, strict=True)]
                self._put(layers, _text(own, reached, limits, first, self._filler), slice(first, last))

    def _put(self, layers: Sequence[Layer], text: Text, rows: slice) -> None:
        """Compute keys and values of one member's tokens; in the last layer, nothing else."""
        queries = self._turning.sizes[0]
        slots = min(self._slots.slots, slots_for(int(text.positions.max()) + 1, self._turning.dim))
        unseen, turns = unseen_by(text.asking, slots), self._turns.index_select(0, text.positions)
        places = self._slots.places(text.rows, text.slots)
        x = self._embeddings.index_select(0, text.ids)
        for index, layer in enumerate(layers[:-1]):
            made = self._turned(x, layer, turns)
            self._slots.write(index, places, made[:, queries:].index_select(0, text.spread))
            padded = x.new_zeros(text.asking.numel(), queries).index_copy_(0, text.places, made[:, :queries])
            keys, values = self._slots.kept[index][:, rows, :, :slots]
            seen = attended(padded.mul_(self._scaling).view(*text.asking.shape, queries), keys, values, unseen)
            self._finish(x, seen.flatten(0, 1).index_select(0, text.places), layer)
        last = layers[-1]
        made = self._joined(x, last.first, last.reads[:, :, queries:])
        turn(made, turns[:, queries // 2 :])
        self._slots.write(len(layers) - 1, places, made.index_select(0, text.spread))

    def step(self, tokens: Tensor, positions: Tensor, longest: int) -> Tensor:
        """Put one token into each row, and return float[rows, vocabulary]; the next step writes over it."""
        if longest >= self._slots.slots:
            self._slots.reach(longest + 1)
            self._turns = self._turning.at(torch.arange(self._slots.slots))
        queries, places = self._turning.sizes[0], self._slots.places(torch.arange(len(tokens)), positions)
        unseen, turns = unseen_by(positions[:, None], self._slots.slots), self._turns.index_select(0, positions)
        x = self._embeddings.index_select(0, tokens)
        for index, layer in enumerate(self._layers):
            made = self._turned(x, layer, turns)
            self._slots.write(index, places, made[:, queries:])
            keys, values = self._slots.kept[index]
            seen = attended((made[:, :queries] * self._scaling)[:, None], keys, values, unseen)
            self._finish(x, seen[:, 0], layer)
        return self._joined(x, self._norm, self._head)

    def _turned(self, x: Tensor, layer: Layer, turns: Tensor) -> Tensor:
        """Return float[tokens, queries + keys + values], turned."""
        made = self._joined(x, layer.first, layer.reads)
        turn(made, turns)
        return made

    def _joined(self, x: Tensor, norm: Tensor, weights: Tensor) -> Tensor:
        """Return float[tokens, out], the product of x: float[tokens, width], normalised."""
        normed = _normed(x, norm, self._epsilon, self._scratch.take("normed", *x.shape))
        return _product(normed, weights, self._scratch.take("product", len(x), weights.shape[2]))

    def _finish(self, x: Tensor, seen: Tensor, layer: Layer) -> None:
        """Add to x: float[tokens, width] what follows attention, whose output is `seen`: float[tokens, queries]."""
        _add_product(x, seen, layer.writes)
        gate, up = self._joined(x, layer.second, layer.widens).chunk(2, dim=1)
        _add_product(x, silu(gate, inplace=True).mul_(up), layer.narrows)

    def select(self, rows: Tensor, members: Sequence[int]) -> None:
        """Let the other rows and members go."""
        self._slots.select(rows)
        if len(members) < len(self._layers[0].reads):
            self._layers = [layer.of(members) for layer in self._layers]
