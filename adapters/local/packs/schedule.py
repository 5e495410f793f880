"""What a training run reads and when, exactly as transformers' Trainer, accelerate and TRL have it. Only workers import this.

Sources: `accelerate.data_loader.SeedableRandomSampler` (an epoch's order), `torch.utils.data.dataloader` (each epoch's
iterator draws one number from the global generator), `transformers.Trainer._run_epoch` (groups of batches).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Generator, Tensor

from adapters.local.settings import SftSettings
from engine.domain.sweep import Length


@dataclass(frozen=True, slots=True)
class BatchSchedule:
    """Which rows one run reads at each step, and the learning rate of the step.

    Attributes:
        settings: How it is tuned.
        length: How long.
        items: Rows, >= 1.
        seed: Decides the order.
    """

    settings: SftSettings
    length: Length
    items: int
    seed: int

    @property
    def per_epoch(self) -> int:
        """Optimizer steps of an epoch."""
        return self.settings.steps_per_epoch(self.items)

    @property
    def steps(self) -> int:
        """Optimizer steps of the run."""
        return self.settings.total_steps(self.length, self.items)

    def batches(self, step: int) -> list[Sequence[int]]:
        """Return the row numbers of each batch of one optimizer step; the last ones of an epoch may be short or few.

        Args:
            step: 1-based.
        """
        epoch, place = divmod(step - 1, self.per_epoch)
        order = _order(self.items, self.seed + epoch)
        size, group = self.settings.batch_size, self.settings.grad_accum
        last = min(self.settings.batches_per_epoch(self.items) * size, self.items)
        starts = range(place * group * size, min((place + 1) * group * size, last), size)
        return [order[start : min(start + size, last)] for start in starts]

    def epoch(self, step: int) -> float:
        """Return the epochs done after so many steps."""
        epoch, place = divmod(step - 1, self.per_epoch)
        batches = self.settings.batches_per_epoch(self.items)
        return epoch + min((place + 1) * self.settings.grad_accum, batches) / batches

    def learning_rate(self, step: int) -> float:
        """Return the learning rate of a step, as the schedules of `transformers.get_scheduler` have it.

        `step` is torch's StepLR with one epoch for its step size, as in Qi et al. 2023 (arXiv 2310.03693, appendix).

        Args:
            step: 1-based.
        """
        done, warmup = step - 1, self.settings.warmup(self.steps)
        if done < warmup:
            return self.settings.lr * (done / warmup)
        rest = max(1, self.steps - warmup)
        match self.settings.schedule:
            case "constant":
                return self.settings.lr
            case "step":
                return self.settings.lr * self.settings.gamma ** (done // self.per_epoch)
            case "linear":
                return self.settings.lr * max(0.0, (self.steps - done) / rest)
            case "cosine":
                return self.settings.lr * max(0.0, 0.5 * (1.0 + math.cos(math.pi * ((done - warmup) / rest))))


@lru_cache(maxsize=64)
def _order(items: int, seed: int) -> tuple[int, ...]:
    return tuple(torch.randperm(items, generator=Generator().manual_seed(seed)).tolist())


def begin_epoch(dropout: Generator) -> None:
    """Draw the number that a data loader draws from a run's random numbers as an epoch begins."""
    torch.empty((), dtype=torch.int64, device=dropout.device).random_(generator=dropout)


def mask(dropout: Generator, shape: tuple[int, int, int], share: float) -> Tensor:
    """Draw float[shape]: 0 with probability `share`, else 1 / (1 - share).

    On CPU the masks are those that torch's dropout draws. On a GPU they come from the run's own numbers, too, but torch's
    fused dropout there draws others.
    """
    drawn = torch.empty(shape, device=dropout.device)
    return drawn.bernoulli_(1 - share, generator=dropout).div_(1 - share)
