"""Faults that are switched on in the settings or while it runs; the seed decides whom they befall."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from adapters.hosted.rehearsal.settings import Fault, FaultKind


@dataclass(slots=True)
class _Armed:
    """A fault, and what it has done so far."""

    fault: Fault
    draw: random.Random
    seen: int = 0
    befell: int = 0

    def strikes(self) -> bool:
        self.seen += 1
        if self.seen <= self.fault.after or self.befell == self.fault.count:
            return False
        hit = self.draw.random() < self.fault.probability
        self.befell += hit
        return hit


class Faults:
    """Decides what goes wrong.

    Args:
        faults: What may.
        seed: Decides when.
    """

    def __init__(self, faults: Sequence[Fault], seed: int) -> None:
        """Arm them."""
        self._seed = seed
        self._armed: list[_Armed] = []
        self.arm(faults)

    def arm(self, faults: Sequence[Fault]) -> None:
        """Replace all faults by these; they count from the beginning."""
        self._armed = [
            _Armed(fault, random.Random(f"{self._seed} {place} {fault.kind.value}"))  # noqa: S311 - no secret
            for place, fault in enumerate(faults)
        ]

    def strikes(self, kind: FaultKind, call: str) -> Fault | None:
        """Return the fault of this kind that befalls a request, or None.

        Args:
            kind: Which kind.
            call: The request, as `METHOD /path`.
        """
        for armed in self._armed:
            if armed.fault.kind is kind and armed.fault.on in call and armed.strikes():
                return armed.fault
        return None

    def shown(self) -> list[dict[str, object]]:
        """Return every fault, and how often it has befallen a request."""
        return [{**armed.fault.model_dump(mode="json"), "befell": armed.befell} for armed in self._armed]
