"""The budget gate: what may still be started. Pure; reserves before work starts and settles when it ends."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal

from engine.domain.cost import DevicePrice, Usage, charge
from engine.domain.sweep import Budget

SECONDS_PER_HOUR = 3600


@dataclass(slots=True)
class BudgetGate:
    """Holds spent plus reserved within the budget, as far as forecasts are right.

    Attributes:
        budget: The caps.
        price: Price of a device-hour, or None.
        spent: Usage of all ended attempts.
        usd: Their charges.
    """

    budget: Budget
    price: DevicePrice | None
    spent: Usage
    usd: Decimal
    _reserved: dict[str, Usage] = field(default_factory=dict)
    _held: Usage = field(default_factory=Usage)

    def refusal(self, expected: Usage) -> str | None:
        """Return why work of the expected usage may not start, or None when it may."""
        usage = self.spent + self._held + expected
        usd = charge(self._held + expected, self.price)
        caps = (
            ("USD", self.budget.usd, None if usd is None else self.usd + usd),
            ("tokens", self.budget.tokens, usage.tokens),
            ("device-hours", self.budget.device_hours, usage.device_seconds / SECONDS_PER_HOUR),
        )
        for unit, cap, total in caps:
            if cap is not None and total is not None and total > cap:
                return f"the next stage would take the run to {total:.4g} {unit}, over the cap of {cap:g} {unit}"
        return None

    def reserve(self, key: str, expected: Usage) -> None:
        """Hold back the expected usage of a stage that starts."""
        self._reserved[key] = expected
        self._held += expected

    def settle(self, key: str, actual: Usage) -> Decimal | None:
        """Replace a reservation by what was used, and return its charge; None when no price is known."""
        if key in self._reserved:
            self._held -= self._reserved.pop(key)
        self.spent += actual
        cost = charge(actual, self.price)
        self.usd += cost or Decimal()
        return cost
