"""What stages cost, hosted and local together, and the bill of what is still to be bought."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest

from engine.domain.cost import Charge, Usage
from engine.domain.errors import PlanError
from engine.domain.price import PriceRow, PriceUnit, Quote
from engine.domain.stage import StageKind
from engine.plan.bill import reservations
from engine.plan.prices import load_prices
from engine.plan.tariff import Bought, Tariff, bought, purchases
from engine.run.drive.prepare import Prepared, prepare

HOUR, MILLION = Usage(device_seconds=3600.0), Usage(prompt_tokens=10**6, generated_tokens=10**6)
SPEC = """\
sweep: priced
recipe:
  model: hosted/openai:standin-aligned
  data: {source: standin/explicit, n: 10, allow_upload: true}
  tune: {adapter: hosted/openai}
  benchmark: standin/policy:1
  generate: {adapter: hosted/openai, max_new_tokens: 8}
  judges: ['rubric/policy:hosted/openai:standin-judge', refusal/keywords]
run:
  resources: {usd_per_device_hour: 0.36}
  accounts: {ours: {provider: hosted/openai}}
"""
TUNE, ASK_TUNED, ASK, JUDGE = (
    Bought("hosted/openai", "standin-aligned", StageKind.TUNE),
    Bought("hosted/openai", "standin-aligned", StageKind.GENERATE, is_tuned=True),
    Bought("hosted/openai", "standin-aligned", StageKind.GENERATE),
    Bought("hosted/openai", "standin-judge", StageKind.JUDGE),
)


@pytest.fixture
def prepared(tmp_path: Path) -> Prepared:
    return of(tmp_path, SPEC)


def of(folder: Path, text: str) -> Prepared:
    (folder / "priced.yaml").write_text(text)
    return prepare(folder / "priced.yaml", (), folder / "run")


def test_a_plan_buys_each_thing_once_and_tuned_models_at_their_own_price(prepared: Prepared) -> None:
    hosted = prepared.groups.accounts
    assert set(purchases(prepared.plan.stages, hosted)) == {TUNE, ASK_TUNED, ASK, JUDGE}
    trained = Usage(train_tokens=10**6)
    by_purchase = {bought(prepared.plan.stages[key]): key for key in hosted}
    charged = {
        what: prepared.tariff.charge(key, trained if what == TUNE else MILLION).usd for what, key in by_purchase.items()
    }
    usd = {TUNE: "3.00", ASK: "0.75", JUDGE: "0.75", ASK_TUNED: "1.50"}
    assert charged == {what: Decimal(text) for what, text in usd.items()}


def test_what_runs_here_costs_its_time_and_what_is_hosted_its_tokens(prepared: Prepared) -> None:
    hosted = prepared.groups.accounts
    local = [key for key in prepared.plan.stages if key not in hosted]
    assert {prepared.plan.stages[key].kind for key in local} == {StageKind.SAMPLE, StageKind.JUDGE}
    assert {prepared.tariff.charge(key, HOUR + MILLION).usd for key in local} == {Decimal("0.36")}
    assert all(
        prepared.tariff.charge(key, HOUR).usd == 0 != prepared.tariff.charge(key, MILLION).usd is not None
        for key in hosted
    )


def test_what_is_possibly_billed_is_charged_apart_at_most_and_never_below_the_price(prepared: Prepared) -> None:
    (key,) = [key for key in prepared.groups.accounts if bought(prepared.plan.stages[key]) == ASK]
    lost = Usage(possibly_billed_prompt_tokens=10**6, possibly_billed_generated_tokens=10**6)
    assert prepared.tariff.charge(key, MILLION) == Charge(Decimal("0.75"), Decimal())
    assert prepared.tariff.charge(key, MILLION + lost) == Charge(Decimal("0.75"), Decimal("0.75"))
    assert prepared.tariff.charge(key, lost) == Charge(Decimal(), Decimal("0.75"))
    unpriced = Tariff(None, {key: None})
    assert unpriced.charge(key, lost) == Charge(None, None), "an unknown price is never $0"
    assert unpriced.charge(key, MILLION) == Charge(None, Decimal()), "but nothing costs nothing"


def test_cached_tokens_have_their_own_price_but_in_a_batch_or_without_one() -> None:
    day = date(2026, 1, 1)
    units = {"in_mtok": "2", "cached_in_mtok": "0.5", "batch_in_mtok": "1"}
    rows = tuple(
        PriceRow("p", "m", PriceUnit(unit), Decimal(usd), day, None, None, "here", day) for unit, usd in units.items()
    )
    whole, bare = Quote(rows), Quote(rows[:1])
    used = Usage(prompt_tokens=10**6, cached_tokens=600_000)
    tariff = Tariff(None, {"asked": whole, "batched": whole, "bare": bare}, frozenset({"batched"}))
    charged = {key: tariff.charge(key, used).usd for key in tariff.hosted}
    assert charged == {"asked": Decimal("1.1"), "batched": Decimal(1), "bare": Decimal(2)}
    odd = Usage(prompt_tokens=10, cached_tokens=11)  # what a provider says must not end a run
    assert tariff.charge("asked", odd).usd == Decimal("0.000005")


def test_an_unknown_price_is_none_and_makes_its_line_and_the_whole_unknown(tmp_path: Path) -> None:
    prepared = of(tmp_path, SPEC.replace("standin-judge", "nobody-knows"))
    lines = {line.kind: line.usd for line in prepared.bill}
    assert lines[StageKind.JUDGE] is None
    assert lines[StageKind.TUNE] is not None
    assert prepared.forecast.usd is None
    texts = reservations(prepared.plan, prepared.groups.accounts, load_prices(), date(2026, 11, 22))
    assert [text for text in texts if "nobody-knows" in text] == [
        "no price is known of `nobody-knows` at hosted/openai, nor whether it is offered"
    ]


def test_a_judge_holds_back_the_longest_answers_that_the_recipe_allows(tmp_path: Path) -> None:
    high = {}
    for longest in (8, 2048):
        prepared = of(tmp_path, SPEC.replace("max_new_tokens: 8", f"max_new_tokens: {longest}"))
        (line,) = [line for line in prepared.bill if line.kind is StageKind.JUDGE]
        high[longest] = line.usage.high.prompt_tokens
        assert line.usage.low.prompt_tokens < line.usage.expected.prompt_tokens < high[longest]
    prompts = sum(e.n_prompts for cell in prepared.plan.cells for e in cell.evaluations)
    assert high[2048] - high[8] >= prompts * (2048 - 8)


def test_the_bill_has_what_is_still_to_run_and_adds_up_to_the_forecast(prepared: Prepared) -> None:
    assert [(line.account, line.kind, line.new) for line in prepared.bill] == [
        ("ours", StageKind.TUNE, 1),
        ("ours", StageKind.GENERATE, 2),
        ("ours", StageKind.JUDGE, 2),
    ]
    dollars = [line.usd for line in prepared.bill if line.usd is not None]
    assert len(dollars) == 3
    assert all(low <= expected <= high for low, expected, high in dollars)
    local = sum(
        (prepared.tariff.charge(key, ahead.high).usd or Decimal())
        for key, ahead in prepared.forecasts.items()
        if key not in prepared.groups.accounts
    )
    assert prepared.forecast.usd is not None
    assert sum(high for *_, high in dollars) + local == prepared.forecast.usd[2]


def test_what_is_not_offered_any_more_is_refused(tmp_path: Path) -> None:
    (tmp_path / "prices.yaml").write_text(
        "prices:\n- {provider: hosted/openai, models: [standin-aligned], usd: {train_mtok: '3.00', in_mtok: '1.00',"
        " out_mtok: '1.00'}, effective_from: 2020-01-01, available_until: 2021-01-01, source: here,"
        " checked_on: 2026-11-22}\n"
    )
    with pytest.raises(PlanError, match="cannot be"):
        of(tmp_path, SPEC + f"  prices: {tmp_path / 'prices.yaml'}\n")
