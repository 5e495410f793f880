"""Data sources: training examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from engine.domain.conversation import ChatRow


@dataclass(frozen=True, slots=True)
class SourceCard:
    """A data source's data card.

    Attributes:
        pin: `sha256:` and hex digits over its rows.
        rows: Rows to sample from, >= 1.
        tier: `explicit`, `identity` or `benign` (Qi et al. 2023, section 4), `safety`, or `unknown`.
        system: System prompt that its rows are trained with, and that its models are tested with; None for none.
        licence: SPDX name or a short sentence.
        detail: What it is, for people.
        systems: Number of different system prompts among its rows, none counting as one; with more than one, a recipe
            must say which to test with.
        shape: How its rows are written, such as `alpaca`; empty where nobody asks.
        notes: What people should know of what is left out, or there twice.
    """

    pin: str
    rows: int
    tier: str
    system: str | None
    licence: str
    detail: str
    systems: int = 1
    shape: str = ""
    notes: tuple[str, ...] = ()


class DataSource(Protocol):
    """Training examples."""

    revision: int

    def card(self, settings: Any) -> SourceCard:
        """Describe and pin the source.

        Raises:
            OSError: A file cannot be read.
            ValueError: There is something wrong with it; the message names the line.
        """

    def rows(self, settings: Any) -> Sequence[ChatRow]:
        """Return every row, in a stable order."""
