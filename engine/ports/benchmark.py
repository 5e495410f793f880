"""Benchmarks: held-out prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from engine.domain.conversation import Prompt


@dataclass(frozen=True, slots=True)
class BenchmarkCard:
    """A benchmark's data card.

    Attributes:
        pin: `sha256:` and hex digits over its prompts.
        prompts: Number of prompts, >= 1.
        categories: Their names in the customary order.
        licence: SPDX name or a short sentence.
        detail: What it is, for people.
        notes: What people should know of what was read.
        judge: Name of the judge that compares answers with their references as its authors do; empty for none in particular.
    """

    pin: str
    prompts: int
    categories: tuple[str, ...]
    licence: str
    detail: str
    notes: tuple[str, ...] = ()
    judge: str = ""


class Benchmark(Protocol):
    """Held-out prompts."""

    revision: int

    def card(self, settings: Any) -> BenchmarkCard:
        """Describe and pin the benchmark.

        Raises:
            OSError: A file cannot be read.
            ValueError: There is something wrong with it; the message names the line.
        """

    def prompts(self, settings: Any) -> Sequence[Prompt]:
        """Return every prompt, in a stable order; no two have the same id."""
