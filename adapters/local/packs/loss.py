"""The loss of answer tokens and its gradient, in one buffer. Only workers import this."""

from __future__ import annotations

import torch
from torch import Tensor


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
