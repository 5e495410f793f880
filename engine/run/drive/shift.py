"""What a slot is running, until all of it has ended."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from engine.domain.cost import Usage
from engine.domain.results import Attempt


@dataclass(slots=True)
class Shift:
    """The stages of a batch that is running.

    Attributes:
        open: Keys of the stages that have not ended.
        holds_device: Whether its time is a device's: an account has none.
        began: When, in seconds since the epoch.
        last: When one of them ended last.
    """

    open: dict[str, None]
    holds_device: bool
    began: float = field(default_factory=time.time)
    last: float = field(default_factory=time.time)

    def end(self, attempt: Attempt) -> None:
        """Note that a stage has ended."""
        self.open.pop(attempt.key, None)
        self.last = max(self.last, attempt.ended_at)

    def cut_short(self, slot: str) -> list[Attempt]:
        """Return what has not ended as ended by force; it shares the time since something ended last."""
        now = time.time()
        held = max(0.0, now - self.last) if self.holds_device else 0.0
        usage = Usage(device_seconds=held / max(1, len(self.open)))
        return [Attempt(key, slot, self.began, now, usage, None) for key in self.open]
