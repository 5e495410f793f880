"""What stands behind the API: the ports that really train, answer and grade, and the orders that go to them.

The learning rate that `learning_rate_multiplier: 1` stands for is 1e-3, absolute, with LoRA adapters of rank 8 and a
constant schedule: a provider names no such number, and this one suits the stand-in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from engine.domain.conversation import ChatRow, Prompt, Turn
from engine.domain.sweep import Decoding
from engine.ports import Context, FineTuner, Generator, Judge, ModelSource, Settings, Warm

LEARNING_RATE = 1e-3
RANK = 8
ANSWERED_TOGETHER = 64


@dataclass(frozen=True, slots=True)
class Backend:
    """The parts, injected; all of them can be pickled, because training and answering have processes of their own.

    Attributes:
        tuner: Trains.
        tuner_settings: What the tuner's settings are made of: it has `lr`, `rank` and `batch_size`.
        generator: Answers.
        generator_settings: The generator's settings.
        judge: Grades what `standin-judge` is asked to.
        judge_settings: The judge's settings.
        source: The base model.
        source_settings: Which model of the source.
        prompts: The prompts that the judge knows, by their text.
        warm: Makes what keeps things warm in one process.
    """

    tuner: FineTuner
    tuner_settings: type[Settings]
    generator: Generator
    generator_settings: Settings
    judge: Judge
    judge_settings: Settings
    source: ModelSource
    source_settings: Settings
    prompts: Mapping[str, Prompt]
    warm: Callable[[], Warm]

    def context(self) -> Context:
        """Return what the ports may use in a process: one thread of the CPU, which clients and server share with it."""
        return Context("cpu", 1, ANSWERED_TOGETHER, self.warm())


@dataclass(frozen=True, slots=True)
class Question:
    """One request to a model.

    Attributes:
        turns: The chat so far, without its system prompt; the last turn is the user's.
        system: The system prompt, or None for none.
        settings: Decoding.
        seed: Of the sampling.
        tuned: Folder of the tuned weights, or None for the base model.
    """

    turns: tuple[Turn, ...]
    system: str | None
    settings: Decoding
    seed: int
    tuned: str | None


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

    def settings(self, kind: type[Settings]) -> Settings:
        """Return how to train, as settings of a tuner."""
        rate = min(LEARNING_RATE * self.multiplier, 0.999)
        return kind.model_validate({"lr": rate, "rank": RANK, "batch_size": self.batch_size})

    @property
    def weights(self) -> Path:
        """The folder of the tuned weights; its name is the checkpoint's key."""
        return self.folder / self.name
