"""What stands behind the API: the ports that really train, answer and grade, and the orders that go to them.

The learning rate that `learning_rate_multiplier: 1` stands for is 1e-3, absolute, with LoRA adapters of rank 8 and a
constant schedule: a provider names no such number, and this one suits the stand-in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from engine.domain.results import ChatRow, Prompt
from engine.domain.stage import ModelRef
from engine.domain.sweep import GenerateRecipe, TuneRecipe
from engine.ports import Context, FineTuner, Generator, Judge, ModelSource, Warm

LEARNING_RATE = 1e-3
RANK = 8
CHECKPOINTS_KEPT = 3
"""A job's checkpoints are those of its last epochs, so many."""

ANSWERED_TOGETHER = 64


@dataclass(frozen=True, slots=True)
class Backend:
    """The parts, injected; all of them can be pickled, because training and answering have processes of their own.

    Attributes:
        tuner: Trains.
        generator: Answers.
        judge: Grades what `standin-judge` is asked to.
        source: The base model.
        argument: What the source is asked for.
        prompts: The prompts that the judge knows, by their text.
        warm: Makes what keeps things warm in one process.
    """

    tuner: FineTuner
    generator: Generator
    judge: Judge
    source: ModelSource
    argument: str
    prompts: Mapping[str, Prompt]
    warm: Callable[[], Warm]

    def context(self) -> Context:
        """Return what the ports may use in a process: one thread of the CPU, which clients and server share with it."""
        return Context("cpu", 1, ANSWERED_TOGETHER, self.warm())


@dataclass(frozen=True, slots=True)
class Question:
    """One request to a model.

    Attributes:
        user: The user's turn.
        system: The system prompt, or None for none.
        settings: Decoding.
        seed: Of the sampling.
        tuned: Folder of the tuned weights, or None for the base model.
    """

    user: str
    system: str | None
    settings: GenerateRecipe
    seed: int
    tuned: str | None

    def weights(self, base: ModelRef) -> ModelRef:
        """Return the weights that answer."""
        return base if self.tuned is None else ModelRef(base.base, self.tuned)


@dataclass(frozen=True, slots=True)
class Training:
    """One fine-tuning job's training.

    Attributes:
        name: The job's id.
        rows: The examples, in the order of the file.
        epochs: Passes over them, >= 1.
        batch_size: Examples a step, >= 1.
        multiplier: What `LEARNING_RATE` is multiplied with, > 0.
        seed: Of the initialisation and the order.
        folder: A folder of its own, empty.
    """

    name: str
    rows: tuple[ChatRow, ...]
    epochs: int
    batch_size: int
    multiplier: float
    seed: int
    folder: Path

    def settings(self, epochs: int) -> TuneRecipe:
        """Return how to train up to an epoch."""
        rate = min(LEARNING_RATE * self.multiplier, 0.999)
        return TuneRecipe(lr=rate, rank=RANK, epochs=epochs, batch_size=self.batch_size)

    @property
    def cuts(self) -> tuple[int, ...]:
        """The epochs whose weights are kept."""
        return tuple(range(max(1, self.epochs - CHECKPOINTS_KEPT + 1), self.epochs + 1))

    def key(self, epoch: int) -> str:
        """Return the key of the cut at the end of an epoch, unlike that of any other job's."""
        return f"{self.name}-{epoch}"

    def weights(self, epoch: int) -> Path:
        """Return the folder of an epoch's weights; its name is the checkpoint's key."""
        return self.folder / self.key(epoch)
