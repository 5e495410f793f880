"""What stands behind the API: the ports that really train, answer and grade.

The learning rate that `learning_rate_multiplier: 1` stands for is 1e-3, absolute, with LoRA adapters of rank 8 and a
constant schedule: a provider names no such number, and this one suits the stand-in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from engine.domain.conversation import Prompt
from engine.domain.stage import ModelRef
from engine.ports import Context, FineTuner, Generator, Judge, ModelSource, NoSettings, Settings, Warm

LEARNING_RATE = 1e-3
RANK = 8
ANSWERED_TOGETHER = 64


@dataclass(frozen=True, slots=True)
class Backend:
    """The parts, injected; all of them can be pickled, because training and answering have processes of their own.

    Attributes:
        tuner: Trains.
        generator: Answers.
        judge: Grades what `standin-judge` is asked to.
        source: The base model.
        prompts: The prompts that the judge knows, by their text.
        warm: Makes what keeps things warm in one process.
    """

    tuner: FineTuner
    generator: Generator
    judge: Judge
    source: ModelSource
    prompts: Mapping[str, Prompt]
    warm: Callable[[], Warm]

    def context(self) -> Context:
        """Return what the ports may use in a process: one thread of the CPU, which clients and server share with it."""
        return Context("cpu", 1, ANSWERED_TOGETHER, self.warm())

    def model(self, tuned: str | None = None) -> ModelRef:
        """Return the base model, or one that was tuned, by the folder of its weights."""
        base = self.source.locate(settings_of(self.source)())
        return base if tuned is None else ModelRef(base.base, (tuned,))

    def training(self, batch_size: int, multiplier: float) -> Settings:
        """Return how to train, as settings of the tuner: they have `lr`, `rank` and `batch_size`."""
        rate = min(LEARNING_RATE * multiplier, 0.999)
        return settings_of(self.tuner).model_validate({"lr": rate, "rank": RANK, "batch_size": batch_size})


def settings_of(adapter: object) -> type[Settings]:
    """Return what an adapter's settings are made of."""
    declared: type[Settings] = getattr(adapter, "Settings", NoSettings)
    return declared
