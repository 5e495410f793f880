"""What keeps loaded things between the stages of one worker."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

T = TypeVar("T")


class Warm(Protocol):
    """Keeps expensive things between the stages of one worker."""

    def get(self, slot: str, key: str, make: Callable[[], T]) -> T:
        """Return what `slot` holds under `key`; if it holds something else, drop that and keep `make()`.

        A slot stands for a kind of thing, and holds one at a time.
        """

    def drop(self, slot: str) -> None:
        """Forget what `slot` holds, so that its memory is free."""
