"""Who goes with whom, what that saves, and which field prevents it."""

from __future__ import annotations

from engine.domain.stage import Plan, Range, StageKind
from engine.plan.build import build
from engine.plan.catalogue import Catalogue
from engine.plan.estimate import stage_forecasts
from engine.plan.share import Groups, Savings, group, savings, shared
from engine.spec.expand import expand
from engine.spec.load import read_sweep

SPEC = """\
sweep: shares
recipe:
  model: standin/aligned
  data: {source: standin/explicit, n: 10}
  tune: {lr: 1e-3}
  benchmark: standin/policy
  judges: [standin/rules]
axes: {%s}
"""


def grouped(axes: str) -> tuple[Plan, Groups, dict[str, Range]]:
    loaded = read_sweep((SPEC % axes).encode(), "shares.yaml")
    expansion = expand(loaded.sweep, loaded.positions)
    catalogue = Catalogue()
    plan = build(loaded.sweep, expansion.cells, expansion.counts, catalogue)
    forecasts = stage_forecasts(plan, catalogue)
    return plan, group(plan.stages, forecasts), forecasts


def saved(
    groups: Groups, alone: dict[str, Range], cached: frozenset[str] = frozenset(), states: frozenset[str] = frozenset()
) -> Savings:
    return savings(groups, alone, shared(alone, groups, cached, states), cached)


def tunes(plan: Plan) -> dict[str, str]:
    return {cell.label: cell.tune for cell in plan.cells if cell.tune}


def test_stages_that_differ_only_in_length_are_one_run_and_its_steps_are_taken_once() -> None:
    plan, groups, forecasts = grouped("tune.epochs: [10, 1, 3], seed: [0, 1], tune.lr: [1e-3, 5e-4]")
    found = saved(groups, forecasts)
    assert (found.tunes, found.trajectories, found.steps, found.steps_alone) == (12, 4, 40, 56)
    by_label = tunes(plan)
    cuts = groups.cuts[by_label["epochs=10 seed=0 lr=0.001"]]
    assert cuts == tuple(by_label[f"epochs={epochs} seed=0 lr=0.001"] for epochs in (1, 3, 10))
    steps = [shared(forecasts, groups)[key].expected.optimizer_steps for key in cuts]
    assert steps == [1, 2, 7]
    after = shared(forecasts, groups, frozenset(cuts[:1]))
    assert [after[key].expected.optimizer_steps for key in cuts] == [1, 3, 7], "nobody goes on from a cut that is done"
    kept = frozenset({groups.runs[cuts[0]]})
    assert [shared(forecasts, groups, frozenset(cuts[:2]), kept)[key].expected.optimizer_steps for key in cuts[2:]] == [
        7
    ]
    ahead = saved(groups, forecasts, frozenset(cuts[:2]), kept)
    assert (ahead.trajectories, ahead.going_on, ahead.steps) == (4, 1, 37)


def test_a_schedule_over_the_whole_run_shares_nothing_and_says_so() -> None:
    _, groups, forecasts = grouped("tune.epochs: [1, 3], tune.schedule: [constant, linear, cosine]")
    found = saved(groups, forecasts)
    assert found.prefix_blocked == {"schedule": 4}
    assert found.trajectories == 1 + 4
    alone = grouped("tune.schedule: [constant, linear]")
    assert saved(alone[1], alone[2]).prefix_blocked == {}, "there is nobody to share with"


def test_lora_runs_on_one_base_share_a_lane_and_what_cannot_says_why() -> None:
    plan, groups, forecasts = grouped(
        "tune.method: [lora, full], tune.backend: [packed, trl], tune.rank: [4, 8], tune.batch_size: [5, 10], data.n: [10, 20]"
    )
    found = saved(groups, forecasts)
    assert found.pack_blocked == {"method": 4, "backend": 8}, "full fine-tuning has neither rank nor backend"
    lanes = {key: groups.lanes[key] for key in tunes(plan).values() if key not in groups.pack_blocked}
    assert len(set(lanes.values())) == 2, "one a batch size"
    assert all(list(groups.lanes.values()).count(groups.lanes[key]) == 1 for key in groups.pack_blocked)


def test_answers_share_a_lane_across_adapters_benchmarks_and_system_prompts() -> None:
    plan, groups, _ = grouped(
        "data.source: [standin/explicit, standin/identity], seed: [0, 1], generate.max_new_tokens: [8, 16]"
    )
    kinds = {
        kind: {groups.lanes[key] for key, stage in plan.stages.items() if stage.kind is kind} for kind in StageKind
    }
    assert {kind: len(lanes) for kind, lanes in kinds.items()} == {
        StageKind.SAMPLE: 1,
        StageKind.TUNE: 1,
        StageKind.GENERATE: 2,
        StageKind.JUDGE: 1,
    }


def test_a_run_keeps_its_name_when_a_longer_cut_joins_it() -> None:
    short, before, _ = grouped("tune.epochs: [1, 3]")
    longer, after, _ = grouped("tune.epochs: [3, 10]")
    assert set(before.runs.values()) == set(after.runs.values())
    assert len(set(before.runs.values())) == 1
    assert set(tunes(short).values()) & set(tunes(longer).values())
