"""What a plan will buy of providers: line by line, with what is doubtful about it, and what cannot be bought any more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import date
from decimal import Decimal

from engine.domain.cost import Range
from engine.domain.errors import PlanError
from engine.domain.plan import Plan
from engine.domain.stage import StageKind
from engine.plan.estimate import total, usd_of
from engine.plan.prices import Offer, PriceTable, warnings
from engine.plan.tariff import UNITS, Tariff, purchases


@dataclass(frozen=True, slots=True)
class BillLine:
    """The stages of one kind on one account that are still to run.

    Attributes:
        account: The account's name.
        kind: The kind of stage.
        new: How many there are.
        usage: What they will use.
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
    """Return the lines of the bill, in the order of accounts and kinds.

    Args:
        plan: The plan.
        accounts: Account by stage key, of the hosted ones.
        forecasts: Forecast by stage key.
        cached: Keys of the stages that need not run.
        tariff: What stages cost.
    """
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
    """Return what a buyer must know, each thing once.

    Raises:
        PlanError: Something that the plan needs is not offered any more.
    """
    said: dict[str, None] = {}
    for what in purchases(plan.stages, accounts):
        found = table.availability(what.provider, what.priced_as, on, UNITS[what.kind])
        if found.offer is Offer.REFUSED:
            raise PlanError(
                found.text, where=f"{what.provider}:{what.priced_as}", todo="choose another model or provider"
            )
        quote = table.quote(what.provider, what.priced_as, on)
        texts = [found.text, *(warnings(quote) if quote is not None else ())]
        said |= dict.fromkeys(text for text in texts if text)
    return list(said)
