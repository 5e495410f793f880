"""Optimizer steps of several runs at once, on one base model: each gets the numbers that it would get alone.

The loss, its normaliser (the answer tokens of the whole accumulated group), the clipping and the update are those of
transformers' Trainer and TRL's SFTTrainer, for each member. Only workers import this.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from adapters.chat import IGNORED
from adapters.local.loaded import LoadedModel
from adapters.local.packs.head import Head
from adapters.local.packs.member import Member
from adapters.local.packs.passes import Group, Passes, checkpointed
from adapters.local.packs.schedule import begin_epoch, mask
from adapters.local.stacked import UnderWay, stacked


class Pack:
    """Members that take their steps together.

    Attributes:
        members: Who they are.

    Args:
        held: The base model.
        members: At least one. They agree in the modules that they adapt.
        passes: How their batches go through the model.

    Raises:
        ValueError: When activations are to be computed again, for which a member with dropout would draw other masks.
    """

    def __init__(self, held: LoadedModel, members: Sequence[Member], passes: Passes) -> None:
        """Freeze the base."""
        if passes.is_checkpointed and any(member.dropout is not None for member in members):
            raise ValueError("a run with dropout cannot train in a pack whose activations are computed again")
        self.members = members
        self.passes = passes
        self._model = held.base.requires_grad_(requires_grad=False)
        self._padding: int = held.tokenizer.pad_token_id
        self._device = next(held.base.parameters()).device
        self._head = Head(held.base)

    def step(self, pulse: Callable[[float], None] = lambda _: None) -> dict[int, FloatingPointError]:
        """Take one optimizer step of each member.

        Args:
            pulse: Is told after each pass which share of the step is done; may raise, and then nobody has moved.

        Returns:
            Why members cannot go on, by their place: those have not moved.

        Raises:
            RuntimeError: When memory does not suffice; nobody has moved, and the step can be tried again.
        """
        begun = time.perf_counter()
        groups = [member.schedule.batches(member.step + 1) for member in self.members]
        kept = [(member.dropout, member.dropout.get_state()) for member in self.members if member.dropout is not None]
        try:
            losses = self.gradients(groups, pulse)
        except BaseException:
            for dropout, state in kept:
                dropout.set_state(state)
            raise
        norms = [clip_grad_norm_(member.weights, member.settings.max_grad_norm) for member in self.members]
        tokens = [
            sum(member.rows.lengths[row] for row in chain(*group))
            for member, group in zip(self.members, groups, strict=True)
        ]
        lost = {}
        for place, (member, norm) in enumerate(zip(self.members, torch.stack(norms).tolist(), strict=True)):
            error = member.diverged(losses[place], norm)
            if error is None:
                member.update(losses[place], tokens[place], min(self.passes.rows, member.batch_shape[0]))
            else:
                lost[place] = error
        seconds = time.perf_counter() - begun
        for member, share in zip(self.members, tokens, strict=True):
            member.seconds += seconds * share / sum(tokens)
        return lost

    def gradients(self, groups: Sequence[Group], pulse: Callable[[float], None] = lambda _: None) -> list[float]:
        """Leave the gradients of one step with the members, unclipped, and return their mean losses per answer token.

        Args:
            groups: What each member reads.
            pulse: As in `step`.
        """
        answers = [
            sum(member.rows.answers[row] for row in chain(*group))
            for member, group in zip(self.members, groups, strict=True)
        ]
        shares = 1 / torch.tensor(answers, dtype=torch.float32, device=self._device).clamp(min=1)
        for member in self.members:
            member.optimizer.zero_grad()
            if member.dropout is not None and member.at_epoch:
                begin_epoch(member.dropout)
        losses = torch.zeros(len(groups), dtype=torch.float64, device=self._device)
        parts = [self.passes.parts(group) for group in groups]
        turns = max(map(len, parts))
        for turn in range(turns):
            pulse(turn / turns)
            own = [part[turn] if turn < len(part) else () for part in parts]
            self._pass(Batch.of(self.members, own, self._padding), shares, losses)
        averages: list[float] = (losses * shares).tolist()
        return averages

    def _pass(self, batch: Batch, shares: Tensor, losses: Tensor) -> None:
        """Run one batch of each member forward and backward, which adds to their gradients.

        Args:
            batch: The batch.
            shares: float[members]: what a token of each counts for in its loss.
            losses: float[members]: the tokens' losses are added to it.
        """
        owners = batch.owners.to(self._device)
        under_way = UnderWay(batch.ids.numel(), batch.masks(self.members))
        adapters = [member.adapter for member in self.members]
        with stacked(self._model, adapters, under_way), checkpointed(self._model, is_on=self.passes.is_checkpointed):
            hidden = self._head.read(batch.ids.to(self._device), batch.places.to(self._device))
            each = self._head.backward(hidden, batch.targets.to(self._device), shares[owners])
        losses.index_add_(0, owners, each.double())


@dataclass(frozen=True, slots=True)
class Batch:
    """What goes through the model at once.

    Attributes:
        ids: long[members * rows, length]: each member's rows, then rows of padding, in its block.
        shapes: Rows of each member, and tokens of the longest of them; 0 without rows.
        places: long[answers]: the positions that the loss looks at, in the flat order of `ids`.
        targets: long[answers]: what they should predict.
        owners: long[answers]: the member that each belongs to.
    """

    ids: Tensor
    shapes: Sequence[tuple[int, int]]
    places: Tensor
    targets: Tensor
    owners: Tensor

    @classmethod
    def of(cls, members: Sequence[Member], batches: Sequence[Sequence[int]], padding: int) -> Batch:
        """Lay out a batch.

        Args:
            members: The members.
            batches: Row numbers, by member; none for a member without a batch.
            padding: The token to pad with.
        """
        pairs = list(zip(members, batches, strict=True))
        longest = (max((member.rows.lengths[row] for row in batch), default=0) for member, batch in pairs)
        shapes = list(zip(map(len, batches), longest, strict=True))
        rows, length = (max(sizes) for sizes in zip(*shapes, strict=True))
        ids = torch.full((len(members), rows, length), padding)
        targets = torch.full_like(ids, IGNORED)
        for block, ((member, batch), (_, width)) in enumerate(zip(pairs, shapes, strict=True)):
            ids[block, : len(batch), :width] = member.rows.ids[list(batch), :width]
            targets[block, : len(batch), :width] = member.rows.targets[list(batch), :width]
        targets = targets.view(-1)
        places = (targets != IGNORED).nonzero().squeeze(1)
        return cls(ids.view(-1, length), shapes, places, targets[places], places // (rows * length))

    def masks(self, members: Sequence[Member]) -> Callable[[int], Tensor] | None:
        """Return what draws the dropout of each layer in turn, or None when no member has any.

        Each member's masks have the shape that they have when it trains alone, without the padding for the others.
        """
        device = next((member.dropout.device for member in members if member.dropout is not None), None)
        if device is None:
            return None

        def draw(fan_in: int) -> Tensor:
            whole = torch.ones(*self.ids.shape, fan_in, device=device)
            blocks = whole.view(len(members), -1, *whole.shape[1:])
            for own, member, (rows, length) in zip(blocks, members, self.shapes, strict=True):
                if member.dropout is not None and rows:
                    own[:rows, :length] = mask(member.dropout, (rows, length, fan_in), member.settings.dropout)
            return whole

        return draw
