"""How the batches of a step go through the model: how many rows at once, and what of their activations is kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from adapters.local.settings import SftSettings
from engine.ports import Fit

Group = Sequence[Sequence[int]]
"""The batches of one optimizer step of one run: row numbers."""


@dataclass(frozen=True, slots=True)
class Passes:
    """How a batch goes through the model. It decides memory and time, and nothing else but rounding, and masks of dropout.

    Attributes:
        rows: Rows of a batch that go through at once, >= 1.
        is_checkpointed: Whether layers compute their activations again in the backward pass instead of keeping them.
    """

    rows: int
    is_checkpointed: bool = False

    @classmethod
    def planned(cls, fit: Fit, settings: SftSettings, rule: int) -> Passes:
        """Return what a plan says, with `rule` for the rows where it says nothing; less where workers have died of it."""
        again = fit.is_checkpointed or settings.gradient_checkpointing == "on" or fit.halvings > 0
        return cls(max(1, min(rule, fit.rows or rule) >> fit.halvings), again and settings.can_checkpoint)

    def parts(self, group: Group) -> list[Sequence[int]]:
        """Return the batches of a step in parts of at most `rows` rows."""
        return [batch[start : start + self.rows] for batch in group for start in range(0, len(batch), self.rows)]

    def smaller(self, *, can_checkpoint: bool) -> Passes | None:
        """Return what takes less memory: half of the rows, then no activations kept; None when there is nothing more to save.

        Args:
            can_checkpoint: Whether activations can be computed again.
        """
        if self.rows > 1:
            return replace(self, rows=self.rows // 2)
        return replace(self, is_checkpointed=True) if can_checkpoint and not self.is_checkpointed else None


@contextmanager
def checkpointed(model: Any, *, is_on: bool) -> Iterator[None]:
    """Have a model's layers compute their activations again in the backward pass while the block runs."""
    if not is_on:
        yield
        return
    model.gradient_checkpointing_enable({"use_reentrant": False})
    model.train()  # layers do it in training alone; the base has no dropout
    try:
        yield
    finally:
        model.gradient_checkpointing_disable()
        model.eval()
