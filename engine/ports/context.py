"""What stages may use on their worker."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from engine.ports.provider import Account

T = TypeVar("T")


class Warm(Protocol):
    """Keeps expensive things between the stages of one worker."""

    def get(self, slot: str, key: str, make: Callable[[], T]) -> T:
        """Return what `slot` holds under `key`; if it holds something else, drop that and keep `make()`.

        Args:
            slot: What kind of thing it is; a slot holds one thing at a time.
            key: Which one.
            make: Makes it.
        """
        ...

    def drop(self, slot: str) -> None:
        """Forget what `slot` holds, so that its memory is free."""
        ...


@dataclass(frozen=True, slots=True)
class Context:
    """What stages may use on their worker; nothing here is part of a key.

    Attributes:
        device: A torch device, such as `cpu` or `cuda:0`.
        threads: CPU threads, >= 1.
        generate_batch: Prompts to decode together, >= 1.
        warm: Keeps loaded models between stages.
        account: The provider's account that this worker is for; None on a worker with a device of its own.
    """

    device: str
    threads: int
    generate_batch: int
    warm: Warm
    account: Account | None = None
