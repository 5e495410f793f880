"""What the contract suites share: a worker's context, without a worker."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from engine.ports import Context


class Slots:
    """Keeps one thing per slot. Implements `engine.ports.Warm`."""

    def __init__(self) -> None:
        self._held: dict[str, tuple[str, Any]] = {}

    def get(self, slot: str, key: str, make: Callable[[], Any]) -> Any:
        if self._held.get(slot, ("", None))[0] != key:
            self._held[slot] = (key, make())
        return self._held[slot][1]

    def drop(self, slot: str) -> None:
        self._held.pop(slot, None)


@pytest.fixture
def context() -> Context:
    return Context("cpu", 1, 8, Slots())
