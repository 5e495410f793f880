"""The limits of the budget: what may still be started. It reserves before work starts and settles when it ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal

from engine.domain.cost import Charge, Usage
from engine.domain.sweep import Budget
from engine.plan.tariff import Tariff
from engine.store.state import State

SECONDS_PER_HOUR = 3600


@dataclass(slots=True)
class BudgetLimits:
    """Holds spent plus reserved within the budget, as far as what was reserved is not exceeded.

    What may have been billed counts against every cap: a cap that may have been passed is a cap that was passed.

    Attributes:
        budget: The caps.
        charge: Returns what a stage, by key, costs that used so much.
        spent: Usage of all ended attempts.
        usd: Their charges, for what was surely used.
        possibly_billed_usd: Their charges, at most, for replies that never came.
    """

    budget: Budget
    charge: Callable[[str, Usage], Charge]
    spent: Usage = field(default_factory=Usage)
    usd: Decimal = Decimal()
    possibly_billed_usd: Decimal = Decimal()
    _reserved: dict[str, tuple[Usage, Decimal]] = field(default_factory=dict)
    _held: Usage = field(default_factory=Usage)
    _held_usd: Decimal = Decimal()

    def reserve(self, key: str, most: Usage) -> str:
        """Hold back what a stage that starts may use; or return why it may not start, and hold nothing back."""
        usage = self.spent + self._held + most
        charge = self.charge(key, most)
        usd = self.usd + self.possibly_billed_usd + self._held_usd + charge.most
        caps = (
            ("USD", self.budget.usd, None if charge.usd is None else usd),
            ("tokens", self.budget.tokens, usage.tokens + usage.possibly_billed.tokens),
            ("device-hours", self.budget.device_hours, usage.device_seconds / SECONDS_PER_HOUR),
        )
        for unit, cap, total in caps:
            if cap is not None and total is not None and total > cap:
                return f"the next stage could take the run to {total:.4g} {unit}, over the cap of {cap:g} {unit}"
        self._reserved[key] = most, charge.most
        self._held += most
        self._held_usd += charge.most
        return ""

    def settle(self, key: str, actual: Usage) -> Charge:
        """Replace a reservation by what was used, and return its charge."""
        if key in self._reserved:
            most, usd = self._reserved.pop(key)
            self._held -= most
            self._held_usd -= usd
        charge = self.charge(key, actual)
        self.add(actual, charge)
        return charge

    def add(self, used: Usage, charge: Charge) -> None:
        """Count what was used."""
        self.spent += used
        self.usd += charge.usd or Decimal()
        self.possibly_billed_usd += charge.possibly_billed_usd or Decimal()


def charged(state: State, tariff: Tariff) -> Iterator[tuple[Usage, Charge]]:
    """Yield what every attempt used and costs; what ran before a price was set counts at today's price."""
    for key, used, known in state.charges():
        yield used, tariff.charge(key, used) if None in (known.usd, known.possibly_billed_usd) else known
