"""Charges: exact to the last digit, additive, never less for more, and never 0 for what has no price."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from decimal import Decimal
from fractions import Fraction

from hypothesis import assume, given
from hypothesis import strategies as st

from engine.domain.cost import Usage
from engine.domain.price import PriceRow, PriceUnit, Quote, charge
from engine.plan.prices import PriceTable

DAY = date(2026, 11, 22)
TOKEN_UNITS = [unit for unit in PriceUnit if unit.value.endswith("mtok")]
DOLLARS = st.decimals(0, 999_999, places=6, allow_nan=False)
COUNTS = st.integers(0, 10**11)
USAGES = st.builds(Usage, train_tokens=COUNTS, prompt_tokens=COUNTS, generated_tokens=COUNTS)


def row(unit: PriceUnit, usd: Decimal, model: str = "m", since: date = DAY) -> PriceRow:
    return PriceRow("p", model, unit, usd, since, None, None, "here", DAY)


def quotes(units: st.SearchStrategy[set[PriceUnit]]) -> st.SearchStrategy[Quote]:
    rows = units.flatmap(lambda chosen: st.tuples(*(DOLLARS.map(lambda usd, u=unit: row(u, usd)) for unit in chosen)))
    return rows.map(Quote)


ALL = quotes(st.just(set(TOKEN_UNITS)))
SOME = quotes(st.sets(st.sampled_from(TOKEN_UNITS), min_size=1))


@given(USAGES, ALL, st.fractions(0, 1))
def test_a_charge_is_exact(usage: Usage, quote: Quote, share: Fraction) -> None:
    cached = int(usage.prompt_tokens * share)
    usd = {unit: Fraction(quote.usd(unit) or 0) for unit in TOKEN_UNITS}
    wanted = (
        usage.train_tokens * usd[PriceUnit.TRAIN_MTOK]
        + (usage.prompt_tokens - cached) * usd[PriceUnit.IN_MTOK]
        + cached * usd[PriceUnit.CACHED_IN_MTOK]
        + usage.generated_tokens * usd[PriceUnit.OUT_MTOK]
    ) / 10**6
    found = charge(replace(usage, cached_tokens=cached), quote)
    assert found is not None
    assert Fraction(found) == wanted


@given(one=USAGES, other=USAGES, quote=ALL, is_batch=st.booleans())
def test_charges_add_up_and_grow_with_the_usage(one: Usage, other: Usage, quote: Quote, *, is_batch: bool) -> None:
    parts = [charge(usage, quote, is_batch=is_batch) for usage in (one, other, one + other)]
    first, second, both = (part for part in parts if part is not None)
    assert first + second == both
    assert both >= max(first, second) >= 0


@given(usage=USAGES, quote=SOME, is_batch=st.booleans())
def test_what_has_no_price_is_unknown_and_never_free(usage: Usage, quote: Quote, *, is_batch: bool) -> None:
    needed = {
        PriceUnit.TRAIN_MTOK: usage.train_tokens,
        PriceUnit.BATCH_IN_MTOK if is_batch else PriceUnit.IN_MTOK: usage.prompt_tokens,
        PriceUnit.BATCH_OUT_MTOK if is_batch else PriceUnit.OUT_MTOK: usage.generated_tokens,
    }
    lacking = any(count and quote.usd(unit) is None for unit, count in needed.items())
    assert (charge(usage, quote, is_batch=is_batch) is None) == lacking
    assert charge(usage, None) is None


@given(st.integers(0, 1_000_000), DOLLARS)
def test_device_hours_are_charged_where_they_have_a_price(seconds: int, usd: Decimal) -> None:
    held = Usage(device_seconds=float(seconds))
    found = charge(held, Quote((row(PriceUnit.DEVICE_HOUR, usd),)))
    assert found is not None
    assert abs(Fraction(found) - Fraction(usd) * seconds / 3600) < Fraction(1, 10**15)
    assert charge(held, Quote((row(PriceUnit.HOST_HOUR, usd),))) == 0


SPAN = (date(2025, 12, 1), date(2027, 1, 31))
ROWS = st.lists(
    st.builds(
        row,
        st.sampled_from(TOKEN_UNITS),
        DOLLARS,
        st.sampled_from(["m", "*", "m*", "*m", "n"]),
        st.dates(date(2026, 1, 1), date(2026, 12, 31)),
    ),
    unique_by=lambda found: (found.unit, found.model, found.effective_from),
)


@given(ROWS.flatmap(lambda rows: st.tuples(st.just(rows), st.permutations(rows))), st.dates(*SPAN))
def test_the_order_of_a_file_does_not_matter(orders: tuple[list[PriceRow], list[PriceRow]], on: date) -> None:
    one, other = (PriceTable((tuple(rows),)).quote("p", "m", on) for rows in orders)
    assert one == other


@given(ROWS, st.dates(*SPAN))
def test_the_row_that_counts_holds_and_none_that_holds_is_better(rows: list[PriceRow], on: date) -> None:
    quote = PriceTable((tuple(rows),)).quote("p", "m", on)
    held = [found for found in rows if found.effective_from <= on and found.model != "n"]
    assume(held)
    assert quote is not None
    assert {found.unit for found in quote.rows} == {found.unit for found in held}
    for chosen in quote.rows:
        rivals = [found for found in held if found.unit is chosen.unit]
        assert chosen in rivals
        assert chosen.model == "m" or all(found.model != "m" for found in rivals)
        assert all(found.effective_from <= chosen.effective_from for found in rivals if found.model == chosen.model)
