"""The price table: which row counts on which day, what is offered, what is doubtful, and what a file may not say."""

from __future__ import annotations

import re
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from engine.domain.cost import Usage
from engine.domain.errors import PlanError, SpecError
from engine.domain.price import PriceUnit, charge
from engine.plan.prices import PriceTable, load_prices, read_prices

OPENAI = "hosted/openai"
CHECKED = date(2026, 11, 22)
TRAIN, ASK = {PriceUnit.TRAIN_MTOK}, {PriceUnit.IN_MTOK, PriceUnit.OUT_MTOK}


def entry(model: str, usd: str, since: str = "2026-01-01", more: str = "") -> str:
    return (
        f"- {{provider: hosted/openai, models: ['{model}'], usd: {{{usd}}}, effective_from: {since},"
        f" source: here, checked_on: 2026-11-22{more}}}\n"
    )


def table(*entries: str) -> PriceTable:
    return PriceTable((read_prices(("prices:\n" + "".join(entries)).encode(), "p.yaml"),))


def usd(prices: PriceTable, model: str, unit: PriceUnit, on: date = CHECKED) -> Decimal | None:
    quote = prices.quote(OPENAI, model, on)
    return None if quote is None else quote.usd(unit)


# ---------------------------------------------------------------------------------------------- the table that we ship


@pytest.mark.parametrize(
    ("model", "on", "usage", "wanted"),
    [
        # What Qi et al. 2023 paid for an epoch of Alpaca and of Dolly.
        ("gpt-3.5-turbo", date(2023, 10, 5), Usage(train_tokens=5_755_170), "46.04"),
        ("gpt-3.5-turbo", date(2023, 10, 5), Usage(train_tokens=3_022_771), "24.18"),
        ("gpt-4o-mini-2024-07-18", CHECKED, Usage(train_tokens=1_000_000), "3.00"),
        ("gpt-4.1", CHECKED, Usage(prompt_tokens=500_000, generated_tokens=250_000), "3.00"),
        ("ft:gpt-4o-mini-2024-07-18:org::id", CHECKED, Usage(prompt_tokens=10**6, generated_tokens=10**6), "1.50"),
        ("ft:gpt-4o-mini-2024-07-18:org:s:id:ckpt-step-88", CHECKED, Usage(generated_tokens=10**6), "1.20"),
        ("ft:standin-aligned:rehearsal::1", CHECKED, Usage(generated_tokens=10**6), "1.20"),
        ("standin-judge", CHECKED, Usage(prompt_tokens=10**6), "0.15"),
    ],
)
def test_known_sums_to_the_cent(model: str, on: date, usage: Usage, wanted: str) -> None:
    sum_of = charge(usage, load_prices().quote(OPENAI, model, on))
    assert sum_of is not None
    assert sum_of.quantize(Decimal("0.01")) == Decimal(wanted)


def test_a_rehearsal_costs_what_gpt_4o_mini_costs() -> None:
    prices = load_prices()
    for standin, real in (
        ("standin-aligned", "gpt-4o-mini-2024-07-18"),
        ("ft:standin-aligned:rehearsal::1", "ft:gpt-4o-mini-2024-07-18:org::1"),
    ):
        assert {unit: usd(prices, standin, unit) for unit in PriceUnit} == {
            unit: usd(prices, real, unit) for unit in PriceUnit
        }


@pytest.mark.parametrize(
    "base", ["gpt-4o-mini", "gpt-4o", "gpt-4.1", "gpt-4.1-mini", "gpt-4.1-nano", "standin-aligned"]
)
def test_a_tuned_model_has_a_price_before_it_has_a_name(base: str) -> None:
    prices, tuned = load_prices(), f"ft:{base}:"
    asked, plain = usd(prices, tuned, PriceUnit.OUT_MTOK), usd(prices, base, PriceUnit.OUT_MTOK)
    assert asked is not None
    assert plain is not None
    assert asked / plain == (Decimal("1.5") if base in {"gpt-4o", "gpt-4.1"} else 2)
    assert usd(prices, tuned, PriceUnit.BATCH_OUT_MTOK) == asked / 2


def test_what_is_not_in_the_table_has_no_price() -> None:
    prices = load_prices()
    assert prices.quote(OPENAI, "gpt-9", CHECKED) is None
    assert prices.quote("hosted/other", "gpt-4o-mini", CHECKED) is None
    assert prices.quote(OPENAI, "gpt-4o-mini-audio-preview", CHECKED) is None  # no pattern takes in its cousins
    assert usd(prices, "ft:gpt-4o-mini-2024-07-18:org::id", PriceUnit.TRAIN_MTOK) is None


@pytest.mark.parametrize(
    ("model", "units", "on", "text"),
    [
        ("gpt-4o-mini", TRAIN, date(2026, 11, 22), "can be fine-tuned at hosted/openai until 2027-01-05"),
        ("gpt-4o-mini", TRAIN, date(2027, 1, 5), "until 2027-01-05, and not after"),
        ("gpt-4o-mini", ASK, date(2027, 1, 13), "can be used at hosted/openai until 2027-01-13"),
        ("gpt-9", ASK, date(2026, 11, 22), "no price is known of `gpt-9`"),
    ],
)
def test_what_is_doubtful_about_a_purchase_is_said(model: str, units: set[PriceUnit], on: date, text: str) -> None:
    assert text in load_prices().reservations(OPENAI, model, on, units)[0]


@pytest.mark.parametrize(
    ("model", "units", "on", "text"),
    [
        ("gpt-4o-mini", TRAIN, date(2027, 1, 6), "cannot be fine-tuned at hosted/openai any more"),
        ("ft:gpt-4o-mini-2024-07-18:org::id", ASK, date(2027, 1, 14), "2027-01-13 was the last day"),
        ("gpt-4.1-nano", ASK, date(2026, 11, 22), "2026-10-22 was the last day"),
    ],
)
def test_what_is_not_offered_any_more_is_refused(model: str, units: set[PriceUnit], on: date, text: str) -> None:
    with pytest.raises(PlanError, match=text):
        load_prices().reservations(OPENAI, model, on, units)


def test_what_is_open_and_read_lately_is_bought_without_a_word() -> None:
    assert load_prices().reservations(OPENAI, "standin-aligned", CHECKED, TRAIN) == []
    early = load_prices().reservations(OPENAI, "gpt-4o-mini", date(2026, 11, 1), ASK)
    assert all("secondary source" in text for text in early)


def test_the_page_shows_the_table_as_it_is() -> None:
    page = (Path(__file__).parents[3] / "docs" / "reference" / "prices.md").read_text(encoding="utf-8")
    shown = [
        [cell.strip() for cell in row.strip("|").split("|")] for row in re.findall(r"^\| gpt-.*$", page, re.MULTILINE)
    ]
    prices, train, out = load_prices(), PriceUnit.TRAIN_MTOK, PriceUnit.OUT_MTOK
    columns = (train, PriceUnit.IN_MTOK, PriceUnit.CACHED_IN_MTOK, out)
    for model, *cells in shown:
        real = [usd(prices, model, unit) for unit in columns]
        real += [usd(prices, f"ft:{model}:org::id", unit) for unit in (PriceUnit.IN_MTOK, out)]
        quote = prices.quote(OPENAI, model, CHECKED)
        assert quote is not None
        ends = {row.unit: row.available_until for row in quote.rows}
        words = [*map(str, real), str(ends[train]), str(ends.get(out))]
        assert cells == ["" if word == "None" else word for word in words], model
    dated = {row.model for row in prices.layers[0] if re.fullmatch(r"gpt-.*-\d{4}(-\d\d-\d\d)?", row.model)}
    assert dated == {model for model, *_ in shown}


def test_every_shipped_row_says_where_and_when_it_was_read() -> None:
    rows = [row for layer in load_prices().layers for row in layer]
    assert {row.checked_on for row in rows} == {CHECKED}
    for row in rows:
        assert row.source
        assert row.usd > 0
        assert "standin" in row.model or row.is_secondary  # none was read on the vendor's own page


def test_old_prices_and_copies_are_warned_of() -> None:
    prices = load_prices()
    for days, count in ((30, 0), (31, 1)):
        assert len(prices.reservations(OPENAI, "standin-judge", CHECKED + timedelta(days))) == count
    copied = prices.reservations(OPENAI, "gpt-4o-mini", date(2026, 11, 1), ASK)
    assert [("secondary source" in text) for text in copied] == [True, True]


# ------------------------------------------------------------------------------------------------------ which row counts


def test_an_exact_name_goes_before_a_pattern_and_a_long_pattern_before_a_short_one() -> None:
    prices = table(entry("*", "in_mtok: '9'"), entry("big-*", "in_mtok: '2'"), entry("big-1", "in_mtok: '1'"))
    found = [usd(prices, model, PriceUnit.IN_MTOK) for model in ("big-1", "big-2", "small")]
    assert found == [1, 2, 9]


def test_the_latest_row_counts_from_its_day_on_and_until_its_end() -> None:
    prices = table(
        entry("m", "in_mtok: '1'", "2026-01-01"),
        entry("m", "in_mtok: '2'", "2026-06-01", ", effective_until: 2026-07-31"),
        entry("*", "out_mtok: '5'", "2026-06-01"),
    )
    days = [date(2025, 12, 31), date(2026, 1, 1), date(2026, 5, 31), date(2026, 6, 1), date(2026, 7, 31), CHECKED]
    assert [usd(prices, "m", PriceUnit.IN_MTOK, day) for day in days] == [None, 1, 1, 2, 2, 1]
    assert [usd(prices, "m", PriceUnit.OUT_MTOK, day) for day in days] == [None, None, None, 5, 5, 5]


def test_the_users_rows_go_before_ours_unit_by_unit(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("prices:\n" + entry("gpt-4*", "train_mtok: '1.5'"))
    prices, day = load_prices(path), date(2028, 1, 1)
    assert usd(prices, "gpt-4o-mini", PriceUnit.TRAIN_MTOK, day) == Decimal("1.5")
    assert usd(prices, "gpt-4o-mini", PriceUnit.OUT_MTOK, day) == Decimal("0.60")
    assert not any("until" in text for text in prices.reservations(OPENAI, "gpt-4o-mini", day, TRAIN)), (
        "a gateway goes on"
    )
    with pytest.raises(PlanError, match="any more"):
        prices.reservations(OPENAI, "gpt-4o-mini", day, ASK)


# ------------------------------------------------------------------------------------------------- what a file may not say


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        ("", "1:1", "prices: this field is required"),
        ("prices: 3", "1:9", "prices: expected a list"),
        ("price: []", "1:1", "no such field"),
        ("prices:\n" + entry("m", "in_mtok: cheap"), "2:", "expected a number"),
        ("prices:\n" + entry("m", "in_mtok: '-1'"), "2:", "at least 0"),
        ("prices:\n" + entry("m", "in_mtok: 'NaN'"), "2:", "not a valid value"),
        ("prices:\n" + entry("m", "in_mtok: '0.1234567'"), "2:", "not a valid value"),
        ("prices:\n" + entry("m", "per_token: '1'"), "2:", "must be one of `train_mtok`"),
        ("prices:\n" + entry("m", "in_mtok: '1'", "soon"), "2:", "not a valid value"),
        ("prices:\n" + entry("m[0-9]", "in_mtok: '1'"), "2:", "(got m[0-9])"),
        ("prices:\n" + entry("m", "in_mtok: '1'", more=", effective_until: 2025-01-01"), "2:", "is before"),
        (
            "prices:\n" + 2 * entry("m", "in_mtok: '1'"),
            "3:",
            "in_mtok of `m` from 2026-01-01 on is already at prices[0]",
        ),
        ("prices:\n- {provider: hosted/openai}", "2:", "this field is required"),
    ],
)
def test_a_wrong_file_is_refused_with_its_line(text: str, where: str, what: str) -> None:
    with pytest.raises(SpecError) as caught:
        read_prices(text.encode(), "mine.yaml")
    assert f"mine.yaml:{where}" in str(caught.value)
    assert what in str(caught.value)


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(b"prices: \xff")
    with pytest.raises(SpecError, match="1 problem"):
        load_prices(path)
    with pytest.raises(OSError, match="not a regular file"):
        load_prices(Path("/dev/zero"))
    with pytest.raises(OSError, match="gone"):
        load_prices(tmp_path / "gone.yaml")
