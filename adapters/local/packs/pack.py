"""Optimizer steps of several runs at once, on one base model: each gets the numbers that it would get alone.

The loss, its normaliser (the answer tokens of the whole accumulated group), the clipping and the update are those of
transformers' Trainer and TRL's SFTTrainer, for each member. Only workers import this.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from adapters.local.loaded import LoadedModel
from adapters.local.packs.batch import Batch
from adapters.local.packs.loss import cross_entropy
from adapters.local.packs.member import Member
from adapters.local.stacked import Block, Pass, Stack

Group = Sequence[Sequence[int]]
"""The batches of one optimizer step of one member: row numbers."""


class Pack:
    """Members that take their steps together.

    Attributes:
        members: Who they are.
        stack: Their weights and gradients, in the same order.

    Args:
        held: The base model.
        members: At least one; those of one rank side by side. They agree in the modules that they adapt.
    """

    def __init__(self, held: LoadedModel, members: Sequence[Member]) -> None:
        """Stack their adapters."""
        self.members = members
        self._model = held.base
        self._padding: int = held.tokenizer.pad_token_id
        self._device = next(held.base.parameters()).device
        self.stack = Stack(held.base, [member.adapter for member in members], trainable=True)
        self._limits = torch.tensor([member.settings.max_grad_norm for member in members], device=self._device)

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Put the adapters into the model."""
        self._model.requires_grad_(requires_grad=False)
        with self.stack.attached():
            yield

    def settle(self, member: Member) -> None:
        """Copy a member's weights as they are now into its `adapter`."""
        member.adapter = self.stack.adapter(self.members.index(member))

    def step(self) -> dict[int, FloatingPointError]:
        """Take one optimizer step of each member; only while attached.

        Returns:
            Why members cannot go on, by their place: those have not moved.

        Raises:
            RuntimeError: When memory does not suffice; nobody has moved, and the step can be tried again.
        """
        begun = time.perf_counter()
        groups = [member.schedule.batches(member.step + 1) for member in self.members]
        with self._dropout_kept():
            losses = self.gradients(groups)
        norms = list(chain.from_iterable(self._clip(block) for block in self.stack.blocks))
        tokens = [
            sum(member.rows.lengths[row] for row in chain(*group))
            for member, group in zip(self.members, groups, strict=True)
        ]
        lost = {}
        for place, member in enumerate(self.members):
            error = member.diverged(losses[place], norms[place])
            if error is None:
                member.update(self.stack.weights(place), self.stack.gradient(place))
                member.advance(losses[place], tokens[place])
            else:
                lost[place] = error
        seconds = time.perf_counter() - begun
        for member, share in zip(self.members, tokens, strict=True):
            member.seconds += seconds * share / sum(tokens)
        return lost

    @contextmanager
    def _dropout_kept(self) -> Iterator[None]:
        """Put the members' random numbers back where they were should the block fail."""
        kept = [(member.dropout, member.dropout.state) for member in self.members if member.dropout is not None]
        try:
            yield
        except BaseException:
            for dropout, state in kept:
                dropout.state = state
            raise

    def gradients(self, groups: Sequence[Group]) -> list[float]:
        """Leave the gradients of one step in the stack, unclipped, and return the members' mean losses per answer token.

        Args:
            groups: What each member reads.
        """
        answers = [
            sum(member.rows.answers[row] for row in chain(*group))
            for member, group in zip(self.members, groups, strict=True)
        ]
        shares = 1 / torch.tensor(answers, dtype=torch.float32, device=self._device).clamp(min=1)
        for member in self.members:
            if member.dropout is not None and member.at_epoch:
                member.dropout.begin_epoch()
        losses = self._losses(groups, shares)
        averages: list[float] = (losses * shares).tolist()
        return averages

    def _losses(self, groups: Sequence[Group], shares: Tensor) -> Tensor:
        """Return the sums of the members' losses, float[members]."""
        losses = torch.zeros(len(groups), dtype=torch.float64, device=self._device)
        for turn in range(max(map(len, groups))):
            batches = [group[turn] if turn < len(group) else () for group in groups]
            batch = Batch.of(self.members, batches, self._padding)
            self._pass(batch, shares, losses, fresh=turn == 0)
        return losses

    def _pass(self, batch: Batch, shares: Tensor, losses: Tensor, *, fresh: bool) -> None:
        """Run one batch of each member forward and backward.

        Args:
            batch: The batch.
            shares: float[members]: what a token of each counts for in its loss.
            losses: float[members]: the tokens' losses are added to it.
            fresh: Whether gradients are begun; else they are added to.
        """
        owners = batch.owners.to(self._device)
        under_way = Pass(batch.ids.numel(), fresh, batch.masks(self.members))
        with self.stack.training(under_way), _head_sees(self._model, batch.places.to(self._device)):
            logits = self._model(input_ids=batch.ids.to(self._device), use_cache=False).logits
            each, slopes = cross_entropy(logits.detach().to(torch.float32, copy=True), batch.targets.to(self._device))
            torch.autograd.backward(logits, slopes.mul_(shares[owners][:, None]).to(logits.dtype))
        losses.index_add_(0, owners, each.double())

    def _clip(self, block: Block) -> list[float]:
        """Clip the gradients of a block's members, each to its own limit, and return their norms before.

        As `torch.nn.utils.clip_grad_norm_`: the norm of the norms of every A and B.
        """
        grads = block.grads
        if grads is None:
            raise ValueError("the stack is not trainable")
        leaves = [torch.linalg.vector_norm(grads[:, leaf], dim=1) for leaf in block.leaves]
        norms = torch.linalg.vector_norm(torch.stack(leaves, dim=1), dim=1)
        grads.mul_((self._limits[block.members] * (norms + 1e-6).reciprocal()).clamp_(max=1)[:, None])
        found: list[float] = norms.tolist()
        return found


@contextmanager
def _head_sees(model: Any, places: Tensor) -> Iterator[None]:
    """Have a model's head compute logits of some tokens alone, float[places, vocabulary], while the block runs.

    Args:
        model: A transformers model for causal language modelling.
        places: long[places]: which tokens, in the flat order of the rows.
    """

    def select(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        hidden = inputs[0]
        return (hidden.reshape(-1, hidden.shape[-1]).index_select(0, places), *inputs[1:])

    hook = model.get_output_embeddings().register_forward_pre_hook(select)
    try:
        yield
    finally:
        hook.remove()
