"""Models: where a base model is, and what planning needs to know of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from engine.domain.stage import ModelRef


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What planning needs to know of a model.

    Attributes:
        pin: `sha256:` and hex digits over its files, or `rev:` and a commit.
        parameters: Number of weights, or None when it cannot be told without loading the model.
        detail: Size, licence and the like, for people.
        standin: True for a made-up model whose numbers say nothing about real ones.
    """

    pin: str
    parameters: int | None
    detail: str
    standin: bool = False


class ModelSource(Protocol):
    """Finds base models."""

    revision: int

    def card(self, settings: Any) -> ModelCard:
        """Describe and pin the model, without loading it.

        Raises:
            OSError: It is not there.
            ValueError: It is not a model, or the settings cannot be.
        """

    def locate(self, settings: Any) -> ModelRef:
        """Say where the model is."""

    def count_tokens(self, settings: Any, texts: Sequence[str]) -> int:
        """Count the tokens of `texts`, template tokens left out, for the forecast."""
