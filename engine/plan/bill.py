"""What a plan will buy of providers, with what is doubtful about it; and whether a run stays under the caps of its budget."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import date
from decimal import Decimal

from engine.domain.cost import SECONDS_PER_HOUR, Range, Usage
from engine.domain.plan import Plan
from engine.domain.stage import StageKind
from engine.domain.sweep import Budget
from engine.plan.estimate import Forecast, total, usd_of
from engine.plan.prices import PriceTable
from engine.plan.tariff import UNITS, Tariff, purchases


@dataclass(frozen=True, slots=True)
class BillLine:
    """The stages of one kind on one account that are still to run.

    Attributes:
        usd: (low, expected, high) US dollars; None when a price is unknown. High is what is reserved before they start.
    """

    account: str
    kind: StageKind
    new: int
    usage: Range
    usd: tuple[Decimal, Decimal, Decimal] | None


def bill(
    plan: Plan,
    accounts: Mapping[str, str],
    forecasts: Mapping[str, Range],
    cached: AbstractSet[str],
    tariff: Tariff,
) -> tuple[BillLine, ...]:
    """Return the lines of the bill, in the order of accounts and kinds."""
    lines: dict[tuple[str, StageKind], list[str]] = {}
    for key, account in accounts.items():
        if key not in cached:
            lines.setdefault((account, plan.stages[key].kind), []).append(key)
    kinds = list(StageKind)
    return tuple(
        BillLine(account, kind, len(keys), total(forecasts[key] for key in keys), usd_of(keys, forecasts, tariff))
        for (account, kind), keys in sorted(lines.items(), key=lambda line: (line[0][0], kinds.index(line[0][1])))
    )


def reservations(plan: Plan, accounts: Mapping[str, str], table: PriceTable, on: date) -> Sequence[str]:
    """Return the price table's warnings about what the plan buys, each once.

    Raises:
        PlanError: Something that the plan needs is not offered any more.
    """
    bought = purchases(plan.stages, accounts)
    said = (table.reservations(what.provider, what.priced_as, on, UNITS[what.kind]) for what in bought)
    return list(dict.fromkeys(text for texts in said for text in texts))


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

    `used_usd` is what all attempts cost at most, as far as prices are known: what has none counts for nothing under a cap.
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
