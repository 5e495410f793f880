"""Logits of the tokens that a loss looks at, and of no other; a few at a time, and never all of them. Only workers import this.

A vocabulary is large: logits of every token of a batch, with what a loss makes of them, take more memory than all else.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from adapters.local.memory import LOGIT_BYTES


class Head:
    """The output layer of a model in training.

    What families of models do to logits after the output layer (soft caps, scales) is theirs: the first token's logits are
    compared with the model's own, and where they differ, the model computes them itself, all at once.

    Args:
        model: A transformers model for causal language modelling.
    """

    def __init__(self, model: Any) -> None:
        """Look how many tokens fit."""
        self._model = model
        self._most = max(16, LOGIT_BYTES // 4 // int(model.config.get_text_config().vocab_size))
        self._is_plain: bool | None = None  # not known yet

    def read(self, ids: Tensor, places: Tensor) -> Tensor:
        """Run the model up to its output layer.

        Args:
            ids: long[rows, length].
            places: long[answers]: the tokens that the loss looks at, in the flat order of `ids`.

        Returns:
            What the output layer would read at these tokens, float[answers, width]; or, of a model that changes its logits,
            the logits, float[answers, vocabulary].
        """
        if self._is_plain is False:
            with self._sees(places):
                logits: Tensor = self._model(input_ids=ids, use_cache=False).logits
            return logits
        with self._sees(places[:1]) as seen:
            first = self._model(input_ids=ids, use_cache=False).logits
        hidden: Tensor = seen[0].index_select(0, places)
        if self._is_plain is None and len(places):
            with torch.no_grad():
                self._is_plain = torch.equal(self._layer(hidden[:1]), first)
            return hidden if self._is_plain else self.read(ids, places)
        return hidden

    def backward(self, read: Tensor, targets: Tensor, shares: Tensor) -> Tensor:
        """Add the gradients of the loss to all that trains, and return each token's loss in nats, float[answers].

        Args:
            read: What `read` returned.
            targets: long[answers].
            shares: float[answers]: what each token counts for in the loss.
        """
        if not len(targets):  # zero gradients are gradients
            torch.autograd.backward(read, torch.zeros_like(read))
            return shares
        if not self._is_plain:
            losses, slopes = cross_entropy(read.detach().to(torch.float32, copy=True), targets)
            torch.autograd.backward(read, slopes.mul_(shares[:, None]).to(read.dtype))
            return losses
        hidden = read.detach().requires_grad_()
        found = []
        for part in range(0, len(targets), self._most):
            chosen = slice(part, part + self._most)
            logits = self._layer(hidden[chosen])
            losses, slopes = cross_entropy(logits.detach().to(torch.float32, copy=True), targets[chosen])
            torch.autograd.backward(logits, slopes.mul_(shares[chosen, None]).to(logits.dtype))
            found.append(losses)
        torch.autograd.backward(read, hidden.grad)
        return torch.cat(found)

    @property
    def _layer(self) -> nn.Module:
        layer: nn.Module = self._model.get_output_embeddings()
        return layer

    @contextmanager
    def _sees(self, places: Tensor) -> Iterator[list[Tensor]]:
        """Have the output layer see some tokens alone while the block runs; yields what it would have seen of all of them."""
        seen: list[Tensor] = []

        def select(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            flat = inputs[0].reshape(-1, inputs[0].shape[-1])
            seen.append(flat)
            return (flat.index_select(0, places), *inputs[1:])

        hook = self._layer.register_forward_pre_hook(select)
        try:
            yield seen
        finally:
            hook.remove()


def cross_entropy(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return each token's loss in nats, float[tokens], and its gradient by the logits, in their place.

    The operations and their order are those of TRL's kernel: Adam magnifies what rounding makes of gradients near zero.

    Args:
        logits: float32[tokens, vocabulary]; spoilt.
        targets: long[tokens].
    """
    at_target = targets[:, None]
    highest = logits.amax(1, keepdim=True)
    total = highest + (logits - highest).exp_().sum(1, keepdim=True).log_()
    losses = (total - logits.gather(1, at_target)).squeeze(1)
    slopes = logits.sub_(total).exp_()
    slopes.scatter_add_(1, at_target, torch.full_like(total, -1))
    return losses, slopes
