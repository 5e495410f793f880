"""The caps of a budget beside what has been used and what is still to run: whether a run will come to its end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal

from engine.domain.cost import SECONDS_PER_HOUR, Usage
from engine.domain.sweep import Budget
from engine.plan.bill import BillLine
from engine.plan.estimate import Forecast


@dataclass(frozen=True, slots=True)
class Cap:
    """One cap, and what there is to stay under it, all in one unit.

    Attributes:
        name: Its field in `run.budget`: `usd` (US dollars), `tokens` or `device_hours`.
        cap: The most that may be used.
        used: What was used, with what may have been billed for replies that never came.
        expected: What the rest is expected to use.
        high: What the rest uses at most.
    """

    name: str
    cap: Decimal
    used: Decimal
    expected: Decimal
    high: Decimal

    @property
    def fits(self) -> bool:
        """Whether what is expected stays under it."""
        return self.used + self.expected <= self.cap

    @property
    def surely_fits(self) -> bool:
        """Whether even the most does."""
        return self.used + self.high <= self.cap


def caps(budget: Budget, used: Usage, used_usd: Decimal, ahead: Forecast, bill: Sequence[BillLine]) -> tuple[Cap, ...]:
    """Return the caps that are set.

    Args:
        budget: The budget.
        used: What all attempts used.
        used_usd: What they cost at most, as far as prices are known: what has none counts for nothing under a cap.
        ahead: What the rest will use.
        bill: What of it is bought of providers.
    """
    _, expected, high = ahead.usd or _bought(bill)
    three = used, ahead.total.expected, ahead.total.high
    totals = (
        ("usd", budget.usd, (used_usd, expected, high)),
        ("tokens", budget.tokens, map(_tokens, three)),
        ("device_hours", budget.device_hours, map(_hours, three)),
    )
    return tuple(Cap(name, Decimal(str(cap)), *amounts) for name, cap, amounts in totals if cap is not None)


def _bought(bill: Sequence[BillLine]) -> Iterator[Decimal]:
    known = [line.usd for line in bill if line.usd is not None]
    return (sum((usd[at] for usd in known), Decimal()) for at in range(3))


def _tokens(usage: Usage) -> Decimal:
    return Decimal(usage.tokens + usage.possibly_billed.tokens)


def _hours(usage: Usage) -> Decimal:
    return round(Decimal(str(usage.device_seconds)) / SECONDS_PER_HOUR, 9)
