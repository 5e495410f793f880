"""Forecasts: what is counted, what calibrates them, and what is unknown."""

from __future__ import annotations

from decimal import Decimal

import pytest

from engine.domain.cost import Range
from engine.domain.errors import PlanError
from engine.domain.plan import Plan
from engine.domain.stage import StageKind
from engine.plan.catalogue import Catalogue
from engine.plan.estimate import calibrated, calibration, forecast, stage_forecasts
from engine.plan.tariff import Tariff
from engine.plan.why import find_cell, why

from .plans import ACME, of_kind, plan_of

SPEC = """\
sweep: cost
recipe:
  model: standin/aligned
  data: {source: standin/explicit, n: 10}
  tune: {lr: 1e-3, batch_size: 4, grad_accum: 2}
  benchmark: standin/policy
  judges: [standin/rules]
axes: {tune.epochs: [1, 3], data.n: [10, 100]}
"""
CATALOGUE = Catalogue()


@pytest.fixture(scope="module")
def plan() -> Plan:
    return plan_of(SPEC)


@pytest.fixture(scope="module")
def forecasts(plan: Plan) -> dict[str, Range]:
    return stage_forecasts(plan, CATALOGUE)


def test_steps_and_tokens_grow_with_the_dose(plan: Plan, forecasts: dict[str, Range]) -> None:
    by_dose = {
        (cell.cell.recipe.tune.epochs, cell.cell.recipe.data.n): forecasts[cell.tune].expected
        for cell in plan.cells
        if cell.tune
    }
    # 10 rows are 3 batches of 4, and those are 2 optimizer steps of 2 batches.
    assert by_dose[1, 10].optimizer_steps == 2
    assert by_dose[3, 100].optimizer_steps == 39
    assert by_dose[3, 10].train_tokens == 3 * by_dose[1, 10].train_tokens
    assert by_dose[3, 100].device_seconds > by_dose[1, 10].device_seconds > 0


def test_low_expected_and_high_are_in_order(forecasts: dict[str, Range]) -> None:
    for found in forecasts.values():
        assert found.low.device_seconds <= found.expected.device_seconds <= found.high.device_seconds
        assert found.low.tokens <= found.expected.tokens <= found.high.tokens


def test_an_unknown_price_is_unknown_and_cached_stages_are_free(plan: Plan, forecasts: dict[str, Range]) -> None:
    assert forecast(plan, forecasts, frozenset(), Tariff(None, {})).usd is None
    ahead = forecast(plan, forecasts, frozenset(plan.stages), Tariff(Decimal(2), {}))
    assert ahead.usd == (0, 0, 0)
    assert (ahead.new, ahead.stages) == (0, len(plan.stages))


def test_finished_stages_correct_the_rest_of_their_kind(plan: Plan, forecasts: dict[str, Range]) -> None:
    tunes = [key for key, stage in plan.stages.items() if stage.kind is StageKind.TUNE]
    factors = calibration(forecasts, plan, {tunes[0]: forecasts[tunes[0]].expected.device_seconds * 10})
    slow = calibrated(forecasts, plan, factors)
    for key in tunes:
        assert slow[key].expected.device_seconds == pytest.approx(10 * forecasts[key].expected.device_seconds)
    generate = next(key for key, stage in plan.stages.items() if stage.kind is StageKind.GENERATE)
    assert slow[generate] == forecasts[generate]


def test_why_names_the_field_and_not_a_hash(plan: Plan) -> None:
    cell = find_cell(plan, "epochs=3 n=100")
    sample, tune, *_ = why(plan, cell, [], frozenset({cell.chain[0]}))
    assert (sample.cached, tune.cached) == (True, False)
    # The nearest other tune stage of this plan has the same settings and another sample.
    assert (tune.compared, tune.changes) == ("this plan", ())
    short = plan.stages[find_cell(plan, "epochs=1 n=100").tune or ""].payload
    _, tune, *_ = why(plan, cell, [short], frozenset({cell.chain[0]}))
    assert tune.compared == "the store"
    (change,) = tune.changes
    assert (change.path, change.before, change.after) == ("settings.length.epochs", "1", "3")


def test_an_ambiguous_cell_lists_what_it_could_be(plan: Plan) -> None:
    with pytest.raises(PlanError, match="fits 2 cells"):
        find_cell(plan, "n=100")
    with pytest.raises(PlanError, match="no cell is called"):
        find_cell(plan, "n=7")
    assert find_cell(plan, "0") is plan.cells[0]
    assert find_cell(plan, plan.cells[1].cell_id) is plan.cells[1]


@pytest.mark.usefixtures("acme")
def test_rows_and_screens_and_edits_have_forecasts_and_a_changed_sample_counts_at_most() -> None:
    label = "{use: acme/label, first: standin/refusals, last: standin/chores}"
    more = f"  mitigations: [{label}, 'mix:standin/identity@5', acme/sand, 'acme/stamp:seen']\nbaselines: false\n"
    mitigated = plan_of(ACME + more)
    forecasts = stage_forecasts(mitigated, CATALOGUE)
    (tuned,) = of_kind(mitigated, StageKind.TUNE)
    assert forecasts[tuned].expected.optimizer_steps == -(-(6 + 1 + 1 + 5) // 2), "the sample and every further one"
    assert forecasts.keys() == mitigated.stages.keys()
    assert all(found.expected.device_seconds > 0 for found in forecasts.values())
    (judged,) = of_kind(mitigated, StageKind.JUDGE)
    (plain,) = of_kind(plan_of(ACME + "baselines: false\n"), StageKind.JUDGE)
    assert forecasts[judged] == stage_forecasts(plan_of(ACME), CATALOGUE)[plain], (
        "through the screen, it is of the answers"
    )
