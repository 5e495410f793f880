"""The wall time of a command: start-up, the work on all workers with its tail, and publishing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from engine.domain.cost import Prediction, Range, Usage
from engine.domain.plan import Plan
from engine.domain.stage import StageKind
from engine.plan.catalogue import Catalogue
from engine.plan.estimate import stage_forecasts
from engine.plan.share import Groups, group
from engine.plan.wall import COMMAND_SECONDS, RAY_SECONDS, STAGE_SECONDS, Start, makespan, wall

from .plans import ACME, of_kind, plan_of

pytestmark = pytest.mark.usefixtures("acme")


@pytest.fixture
def plan() -> Plan:
    return plan_of(ACME + "baselines: false\naxes: {seed: [0, 1, 2]}\n")


@pytest.fixture
def groups(plan: Plan) -> Groups:
    return group(plan.stages, stage_forecasts(plan, Catalogue()))


def seconds_of(plan: Plan, tune: float, generate: float) -> dict[str, float]:
    return {
        **dict.fromkeys(of_kind(plan, StageKind.TUNE), tune),
        **dict.fromkeys(of_kind(plan, StageKind.GENERATE), generate),
    }


def test_three_equal_chains_on_two_workers_take_as_long_as_two(plan: Plan, groups: Groups) -> None:
    work = seconds_of(plan, 10.0, 2.0)
    assert makespan(plan.stages, work, groups, 1) == pytest.approx(36)
    assert makespan(plan.stages, work, groups, 2) == pytest.approx(24)
    assert makespan(plan.stages, work, groups, 3) == pytest.approx(12)
    assert makespan(plan.stages, work, groups, 8) == pytest.approx(12), "no worker helps another with one chain"


def test_the_longest_chain_decides_where_it_is_longer_than_a_fair_share(plan: Plan, groups: Groups) -> None:
    work = seconds_of(plan, 1.0, 1.0)
    work[of_kind(plan, StageKind.TUNE)[1]] = 50.0
    assert makespan(plan.stages, work, groups, 2) == pytest.approx(51)


def test_checkpoints_of_a_run_are_one_piece_of_work() -> None:
    plan = plan_of(ACME + "baselines: false\naxes: {tune.epochs: [1, 2, 3]}\n")
    groups = group(plan.stages, stage_forecasts(plan, Catalogue()))
    assert {len(run) for run in groups.checkpoints.values()} == {3}
    assert makespan(plan.stages, seconds_of(plan, 10.0, 1.0), groups, 4) == pytest.approx(31)


def test_a_command_is_start_up_work_and_publishing(plan: Plan, groups: Groups) -> None:
    usage = Usage(device_seconds=10.0)
    same = Range(usage, usage, usage)
    told = Prediction(usage, usage, usage, startup=7.0, basis="measured on this machine")
    forecasts = {key: told if stage.kind is StageKind.TUNE else same for key, stage in plan.stages.items()}
    start = Start.of(forecasts.values(), 3, has_ray=True)
    assert (start.seconds, start.basis) == (7.0, "measured on this machine")
    found = wall(plan.stages, forecasts, groups, frozenset(), start)
    aside = COMMAND_SECONDS[1] + STAGE_SECONDS * len(plan.stages)
    assert found.expected == pytest.approx(aside + RAY_SECONDS[1] + 7.0 + 20.0), "samples and judges hold no model"
    assert found.low < found.expected < found.high
    inline = wall(plan.stages, forecasts, groups, frozenset(), replace(start, workers=1, has_ray=False))
    assert inline.expected == pytest.approx(aside + 7.0 + 60.0)
    done = wall(plan.stages, forecasts, groups, frozenset(plan.stages), start)
    assert (done.low, done.expected, done.high, done.basis) == (0, 0, 0, "")
