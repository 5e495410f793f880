"""One training run in a pack: its rows, its weights and moments, and where it is. Only workers import this."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Generator, Tensor
from torch.optim import AdamW

from adapters.chat import IGNORED
from adapters.local.lora import Adapter
from adapters.local.packs.passes import Passes
from adapters.local.packs.schedule import BatchSchedule
from adapters.local.settings import SftSettings
from engine.domain.cost import Usage
from engine.domain.results import TrainingStep
from engine.ports import Checkpoint, TrainingRun


@dataclass(frozen=True, slots=True)
class Rows:
    """The training rows of one run, in memory.

    Attributes:
        ids: long[rows, length]: the tokens, padded on the right.
        targets: long[rows, length]: the token that each position should predict, `IGNORED` where the loss does not look.
        lengths: Tokens of each row, without padding.
        answers: Positions of each row that the loss looks at.
    """

    ids: Tensor
    targets: Tensor
    lengths: Sequence[int]
    answers: Sequence[int]

    @classmethod
    def of(cls, encoded: Sequence[Mapping[str, Sequence[int]]], padding: int) -> Rows:
        """Lay out encoded rows.

        Args:
            encoded: `input_ids` and `labels` of each row.
            padding: The token to pad with.
        """
        lengths = [len(row["input_ids"]) for row in encoded]
        ids = torch.full((len(encoded), max(lengths)), padding)
        targets = torch.full_like(ids, IGNORED)
        for index, row in enumerate(encoded):
            ids[index, : lengths[index]] = torch.tensor(row["input_ids"])
            targets[index, : lengths[index] - 1] = torch.tensor(row["labels"][1:])
        return cls(ids, targets, lengths, (targets != IGNORED).sum(1).tolist())


@dataclass(eq=False, slots=True)
class Member:
    """One run on its way.

    Attributes:
        run: What to train.
        identity: What must agree for another attempt to go on from its state, as JSON values.
        config: Its `peft.LoraConfig`.
        rows: Its data.
        schedule: The order in which it reads them, and its learning rates.
        dropout: Its random numbers, the stream that it would have to itself; None without dropout.
        cut_rows: Rows of its that were longer than `max_length`.
        has_begun: Whether it has weights: those of runs that wait would fill the memory.
        adapter: Its weights.
        optimizer: As transformers' Trainer has it by default.
        steps: The optimizer steps taken.
        passed: Keys of the checkpoints passed, in order.
        seconds: Device time since the last checkpoint.
        tokens: Tokens of rows read since the last checkpoint.
        begun: Steps that there were at the last checkpoint, or as this attempt began.
        quiet_until: No state need be saved before, by the monotonic clock.
        saved: The step of the state that lies on the disk.
        passes: How it goes through the model after memory did not suffice; None before.
    """

    run: TrainingRun
    identity: Mapping[str, object]
    config: Any
    rows: Rows
    schedule: BatchSchedule
    dropout: Generator | None
    cut_rows: int = 0
    has_begun: bool = field(init=False, default=False)
    adapter: Adapter = field(init=False)
    optimizer: AdamW = field(init=False)
    steps: list[TrainingStep] = field(default_factory=list)
    passed: list[str] = field(default_factory=list)
    seconds: float = 0.0
    tokens: int = 0
    begun: int = 0
    quiet_until: float = 0.0
    saved: int = 0
    passes: Passes | None = None

    def begin(self, adapter: Adapter) -> None:
        """Take over the weights that it begins with."""
        self.has_begun, self.adapter = True, adapter
        weights = [weight.requires_grad_() for weight in self.weights]
        told = self.settings
        betas = (told.beta1, told.beta2)
        self.optimizer = AdamW(weights, betas=betas, eps=told.epsilon, weight_decay=told.weight_decay, fused=True)

    @property
    def weights(self) -> list[Tensor]:
        """A and B of every module, in the model's order."""
        return [weight for path in self.adapter.a for weight in (self.adapter.a[path], self.adapter.b[path])]

    @property
    def settings(self) -> SftSettings:
        """How it is tuned."""
        return self.schedule.settings

    @property
    def step(self) -> int:
        """Optimizer steps done."""
        return len(self.steps)

    @property
    def batch_shape(self) -> tuple[int, int]:
        """Rows of its largest batch, and tokens of its longest row."""
        return min(self.settings.batch_size, self.schedule.items), self.rows.ids.shape[1]

    @property
    def missing(self) -> list[Checkpoint]:
        """The checkpoints that it has not passed, in order."""
        return [checkpoint for checkpoint in self.run.checkpoints if checkpoint.key not in self.passed]

    @property
    def reached(self) -> list[Checkpoint]:
        """The checkpoints that it has not passed and is at."""
        return [checkpoint for checkpoint in self.missing if self.end(checkpoint) == self.step]

    @property
    def end_before(self) -> int:
        """The step of the last checkpoint that it has passed; 0 before the first."""
        passed = [self.end(checkpoint) for checkpoint in self.run.checkpoints if checkpoint.key in self.passed]
        return max(passed, default=0)

    def end(self, checkpoint: Checkpoint) -> int:
        """Return the step after which a checkpoint is."""
        return self.settings.total_steps(checkpoint.length, self.schedule.items)

    @property
    def at_epoch(self) -> bool:
        """Whether an epoch has just ended."""
        return self.step % self.schedule.per_epoch == 0

    def update(self, loss: float, tokens: int, rows_at_once: int) -> None:
        """Take one step, with the gradients as they are.

        Args:
            loss: Mean loss per answer token before it.
            tokens: Tokens of the rows that it read.
            rows_at_once: Rows that went through the model at once.
        """
        step = self.step + 1
        rate = self.schedule.learning_rate(step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.steps.append(TrainingStep(step, self.schedule.epoch(step), loss, rate, rows_at_once))
        self.tokens += tokens

    def settle_up(self) -> Usage:
        """Return what was used since the last checkpoint, and begin to count anew."""
        usage = Usage(optimizer_steps=self.step - self.begun, train_tokens=self.tokens, device_seconds=self.seconds)
        self.seconds, self.tokens, self.begun = 0.0, 0, self.step
        return usage

    def diverged(self, loss: float, norm: float) -> FloatingPointError | None:
        """Return the error of a step whose loss or gradient is no number, else None."""
        if math.isfinite(loss) and math.isfinite(norm):
            return None
        what = f"the gradient's norm became {norm}" if math.isfinite(loss) else f"the loss became {loss}"
        return FloatingPointError(f"{what} at step {self.step + 1}; a lower learning rate may help")
