"""Models: where a base model is, and what planning needs to know of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from engine.domain.conversation import ChatRow, Prompt
from engine.domain.stage import ModelRef


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What planning needs to know of a model.

    Attributes:
        pin: `sha256:` and hex digits over its files, or `rev:` and a commit.
        parameters: Number of weights, or None when it cannot be told without loading the model.
        detail: Size, licence and the like, for people.
        standin: True for a made-up model whose numbers say nothing about real ones.
        answer: Tokens of its longest usual answers; None when unknown, and then a forecast lets answers be as long as they may.
    """

    pin: str
    parameters: int | None
    detail: str
    standin: bool = False
    answer: int | None = None


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

    def row_lengths(self, settings: Any, rows: Sequence[ChatRow]) -> Sequence[int]:
        """Return the tokens of each training row as the model would read it, chat template and all, for the forecast.

        Raises:
            OSError: The tokenizer cannot be read.
            ValueError: The template cannot render a row.
        """

    def prompt_lengths(self, settings: Any, prompts: Sequence[Prompt], system: str | None) -> Sequence[int]:
        """Return the tokens of each prompt as the model would read it, with a system prompt; None for none.

        Raises:
            OSError: The tokenizer cannot be read.
            ValueError: The template cannot render a prompt.
        """
