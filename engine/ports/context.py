"""What stages may use on their worker."""

from __future__ import annotations

from dataclasses import dataclass

from engine.ports.account import Account
from engine.ports.warm import Warm


@dataclass(frozen=True, slots=True)
class Context:
    """What stages may use on their worker; nothing here is part of a key.

    Attributes:
        device: A torch device, such as `cpu` or `cuda:0`.
        threads: CPU threads, >= 1.
        generate_batch: Prompts to decode together on a GPU, >= 1.
        warm: Keeps loaded models between stages.
        account: The provider's account that this worker is for; None on a worker with a device of its own.
    """

    device: str
    threads: int
    generate_batch: int
    warm: Warm
    account: Account | None = None
