"""What stages may use on their worker."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from engine.ports.account import Account
from engine.ports.warm import Warm


class StoppedError(Exception):
    """The run is to stop: a stage that says how far it is gets this, and lets it pass once it has kept what lets it go on."""


class Pulse(Protocol):
    """Where a stage says that it is alive."""

    def beat(self, key: str, done: float, of: float) -> None:
        """Say how far a stage is. Cheap: for innermost loops.

        Args:
            key: The stage's key.
            done: What is done of it, in any unit.
            of: All of it, in the same unit, > 0.

        Raises:
            StoppedError: The run is to stop.
        """


class NoPulse:
    """Nobody listens."""

    def beat(self, key: str, done: float, of: float) -> None:
        """Do nothing."""


@dataclass(frozen=True, slots=True)
class Context:
    """What stages may use on their worker; nothing here is part of a key.

    Attributes:
        device: A torch device, such as `cpu` or `cuda:0`; the first, where it has several GPUs.
        threads: CPU threads, >= 1.
        generate_batch: Prompts to decode together on a GPU, >= 1.
        warm: Keeps loaded models between stages.
        account: The provider's account that this worker is for; None on a worker with a device of its own.
        devices: How many GPUs it has, >= 0; a share of one counts as one.
        pulse: Where long stages say how far they are, and hear that they are to stop.
    """

    device: str
    threads: int
    generate_batch: int
    warm: Warm
    account: Account | None = None
    devices: int = 0
    pulse: Pulse = field(default_factory=NoPulse)
