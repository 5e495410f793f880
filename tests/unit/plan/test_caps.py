"""Caps of a budget against what is used and what is still to come, in the units of the caps."""

from __future__ import annotations

from decimal import Decimal

import pytest

from engine.domain.cost import Range, Usage
from engine.domain.stage import StageKind
from engine.domain.sweep import Budget
from engine.plan.bill import BillLine, Cap, caps
from engine.plan.estimate import Forecast, KindForecast

USED = Usage(
    train_tokens=100, possibly_billed_prompt_tokens=20, possibly_billed_generated_tokens=3, device_seconds=1800
)
REST = Range(Usage(), Usage(generated_tokens=50, device_seconds=3600), Usage(generated_tokens=90, device_seconds=7200))
LINE = BillLine("ours", StageKind.TUNE, 1, REST, (Decimal(1), Decimal(2), Decimal(4)))


def ahead(usd: tuple[Decimal, Decimal, Decimal] | None) -> Forecast:
    return Forecast((KindForecast(StageKind.TUNE, 1, 1, REST),), REST, usd, 1, calibrated=False)


@pytest.mark.parametrize("priced", [True, False], ids=["all priced", "this machine has no price"])
def test_every_cap_that_is_set_is_told_in_its_own_unit(*, priced: bool) -> None:
    known = (Decimal(1), Decimal(3), Decimal(6)) if priced else None
    budget = Budget(usd=Decimal(9), tokens=200, device_hours=2)
    assert caps(budget, USED, Decimal("0.5"), ahead(known), [LINE, LINE]) == (
        Cap("usd", Decimal(9), Decimal("0.5"), Decimal(3 if priced else 4), Decimal(6 if priced else 8)),
        Cap("tokens", Decimal(200), Decimal(123), Decimal(50), Decimal(90)),
        Cap("device_hours", Decimal(2), Decimal("0.5"), Decimal(1), Decimal(2)),
    )
    assert caps(Budget(), USED, Decimal(), ahead(known), [LINE]) == ()


@pytest.mark.parametrize(
    ("used", "fits", "surely"), [(4, True, True), (5, True, False), (7, True, False), (8, False, False)]
)
def test_what_is_used_counts_and_a_cap_may_be_met_to_the_cent(*, used: int, fits: bool, surely: bool) -> None:
    cap = Cap("usd", Decimal(10), Decimal(used), Decimal(3), Decimal(6))
    assert (cap.fits, cap.surely_fits) == (fits, surely)
