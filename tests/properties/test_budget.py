"""The limits of a budget: whatever the order of starts and ends, admitted work fits the caps, and sums are exact."""

from __future__ import annotations

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from engine.domain.cost import Charge, Usage, device_usd
from engine.domain.sweep import Budget
from engine.run.drive.limits import BudgetLimits

USD_PER_HOUR = Decimal("3.60")  # 0.001 USD a second


def charge(key: str, usage: Usage) -> Charge:
    """Return what a stage costs: each has the same price here, and a token that is possibly billed costs 0.0001 USD at most."""
    del key
    return Charge(device_usd(usage, USD_PER_HOUR), usage.possibly_billed.tokens * Decimal("0.0001"))


USAGES = st.builds(
    Usage, train_tokens=st.integers(0, 1000), device_seconds=st.integers(0, 4000).map(lambda quarter: quarter / 4)
)
LOST = st.builds(
    Usage, possibly_billed_prompt_tokens=st.integers(0, 500), possibly_billed_generated_tokens=st.integers(0, 500)
)


@given(st.lists(st.tuples(USAGES, st.booleans()), max_size=30), st.integers(0, 5000), st.integers(0, 2000))
def test_admitted_work_never_passes_a_cap_when_forecasts_hold(
    work: list[tuple[Usage, bool]], tokens: int, millis: int
) -> None:
    limits = BudgetLimits(Budget(usd=Decimal(millis) / 1000, tokens=tokens), charge)
    waiting: list[tuple[str, Usage]] = []
    for index, (usage, ends_at_once) in enumerate(work):
        if not limits.reserve(str(index), usage):
            waiting.append((str(index), usage))
        if ends_at_once and waiting:
            limits.settle(*waiting.pop(0))
    for entry in waiting:
        limits.settle(*entry)
    assert limits.spent.tokens <= tokens
    assert limits.usd <= Decimal(millis) / 1000


@given(st.lists(st.tuples(USAGES, LOST), max_size=30), USAGES, st.integers(0, 5000), st.integers(0, 2000))
def test_a_cap_that_may_have_been_passed_admits_nothing_that_costs(
    work: list[tuple[Usage, Usage]], following: Usage, tokens: int, millis: int
) -> None:
    limits = BudgetLimits(Budget(usd=Decimal(millis) / 1000, tokens=tokens), charge)
    for index, (used, lost) in enumerate(work):
        limits.settle(str(index), used + lost)
    surely, at_most = (
        sum((used for used, _ in work), Usage()),
        sum((lost for _, lost in work), Usage()).possibly_billed.tokens,
    )
    assert (limits.usd, limits.possibly_billed_usd) == (device_usd(surely, USD_PER_HOUR), at_most * Decimal("0.0001"))
    fits = (
        surely.tokens + at_most + following.tokens <= tokens
        and limits.usd + limits.possibly_billed_usd + device_usd(following, USD_PER_HOUR) <= Decimal(millis) / 1000
    )
    assert (limits.reserve("next", following) == "") == fits


@given(st.lists(USAGES, max_size=30))
def test_the_ledger_is_the_sum_of_its_charges_to_the_last_digit(work: list[Usage]) -> None:
    limits = BudgetLimits(Budget(), charge)
    charges = [limits.settle(str(index), usage) for index, usage in enumerate(work)]
    assert limits.usd == sum((Decimal(repr(usage.device_seconds)) / 1000 for usage in work), Decimal())
    assert limits.usd == sum((charge.usd for charge in charges if charge.usd is not None), Decimal())
    assert limits.spent.train_tokens == sum(usage.train_tokens for usage in work)


def test_a_cap_of_nothing_admits_nothing_that_costs() -> None:
    limits = BudgetLimits(Budget(usd=Decimal(0)), charge)
    assert "over the cap of 0 USD" in limits.reserve("key", Usage(device_seconds=1.0))
    assert limits.reserve("key", Usage()) == ""


def test_an_unknown_price_is_never_zero() -> None:
    limits = BudgetLimits(Budget(), lambda _, __: Charge(None))
    assert limits.settle("key", Usage(device_seconds=10.0)).usd is None
