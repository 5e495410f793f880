"""The budget gate: what may still be started. Pure; reserves before work starts and settles when it ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TypeAlias

from engine.domain.cost import Usage
from engine.domain.sweep import Budget

SECONDS_PER_HOUR = 3600

Charge: TypeAlias = Callable[[str, Usage], Decimal | None]
"""Returns the US dollars for what a stage, by key, used; None when no price is known."""


@dataclass(slots=True)
class BudgetGate:
    """Holds spent plus reserved within the budget, as far as what was reserved is not exceeded.

    Attributes:
        budget: The caps.
        charge: Prices what stages use.
        spent: Usage of all ended attempts.
        usd: Their charges.
    """

    budget: Budget
    charge: Charge
    spent: Usage
    usd: Decimal
    _reserved: dict[str, tuple[Usage, Decimal]] = field(default_factory=dict)
    _held: Usage = field(default_factory=Usage)
    _held_usd: Decimal = Decimal()

    def refusal(self, key: str, most: Usage) -> str | None:
        """Return why a stage that may use so much may not start, or None when it may."""
        usage = self.spent + self._held + most
        usd = self.charge(key, most)
        caps = (
            ("USD", self.budget.usd, None if usd is None else self.usd + self._held_usd + usd),
            ("tokens", self.budget.tokens, usage.tokens),
            ("device-hours", self.budget.device_hours, usage.device_seconds / SECONDS_PER_HOUR),
        )
        for unit, cap, total in caps:
            if cap is not None and total is not None and total > cap:
                return f"the next stage could take the run to {total:.4g} {unit}, over the cap of {cap:g} {unit}"
        return None

    def reserve(self, key: str, most: Usage) -> None:
        """Hold back what a stage that starts may use."""
        usd = self.charge(key, most) or Decimal()
        self._reserved[key] = most, usd
        self._held += most
        self._held_usd += usd

    def settle(self, key: str, actual: Usage) -> Decimal | None:
        """Replace a reservation by what was used, and return its charge; None when no price is known."""
        if key in self._reserved:
            most, usd = self._reserved.pop(key)
            self._held -= most
            self._held_usd -= usd
        self.spent += actual
        cost = self.charge(key, actual)
        self.usd += cost or Decimal()
        return cost
