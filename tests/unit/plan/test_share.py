"""Who goes with whom, what that saves, and which field prevents it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from engine.domain.cost import Range
from engine.domain.plan import Plan
from engine.domain.stage import StageKind
from engine.plan.catalogue import Catalogue
from engine.plan.estimate import stage_forecasts
from engine.plan.share import Groups, Savings, group, savings, shared

from .plans import ACME, cell_of, of_kind, plan_of

pytestmark = pytest.mark.usefixtures("acme")

SPEC = ACME.replace("n: 6", "n: 20")  # an epoch has ten steps


def grouped(spec: str) -> tuple[Plan, Groups, dict[str, Range]]:
    plan = plan_of(spec)
    forecasts = stage_forecasts(plan, Catalogue())
    return plan, group(plan.stages, forecasts), forecasts


def saved(
    groups: Groups, alone: dict[str, Range], cached: frozenset[str] = frozenset(), states: frozenset[str] = frozenset()
) -> Savings:
    return savings(groups, alone, shared(alone, groups, cached, states), cached)


def tunes(plan: Plan) -> dict[str, str]:
    """Return the keys of the stages that tune on the user's rows, by cell."""
    return {cell.label: cell.tune for cell in plan.cells if cell.tune}


def test_stages_that_differ_only_in_length_are_one_run_and_its_steps_are_taken_once() -> None:
    spec = SPEC + "axes: {tune.epochs: [10, 1, 3], seed: [0, 1], tune.force: [1.0, 2.0]}\n"
    plan, groups, forecasts = grouped(spec)
    found = saved(groups, forecasts)
    assert (found.tunes, found.training_runs, found.steps, found.steps_alone) == (12, 4, 400, 560)
    by_label = tunes(plan)
    checkpoints = groups.checkpoints[by_label["epochs=10 seed=0 force=1"]]
    assert checkpoints == tuple(by_label[f"epochs={epochs} seed=0 force=1"] for epochs in (1, 3, 10))
    assert len({groups.runs[key] for key in checkpoints}) == 1

    def steps(cached: int, states: frozenset[str] = frozenset()) -> list[int]:
        once = shared(forecasts, groups, frozenset(checkpoints[:cached]), states)
        return [once[key].expected.optimizer_steps for key in checkpoints[cached:]]

    kept = frozenset({groups.runs[checkpoints[0]]})
    assert steps(0) == [10, 20, 70]
    assert steps(1) == [30, 70], "nobody goes on from a checkpoint that is done"
    assert steps(2, kept) == [70], "but from a state that was kept"
    ahead = saved(groups, forecasts, frozenset(checkpoints[:2]), kept)
    assert (ahead.training_runs, ahead.going_on, ahead.steps) == (4, 1, 370)


def checkpoints_of(lengths: list[str], more: str = "") -> list[list[str]]:
    """Return the training runs of cells that differ in length alone, as the lengths of their checkpoints in order."""
    plans = {length: plan_of(SPEC.replace("epochs: 1", length) + more) for length in lengths}
    stages = {key: stage for plan in plans.values() for key, stage in plan.stages.items()}
    forecasts = {key: range_ for plan in plans.values() for key, range_ in stage_forecasts(plan, Catalogue()).items()}
    by_key = {plan.cells[0].tune: length for length, plan in plans.items()}
    runs = dict.fromkeys(group(stages, forecasts).checkpoints.values())
    return [[by_key[key] for key in run] for run in runs]


def test_epochs_and_steps_are_one_run_in_the_order_of_their_steps() -> None:
    lengths = ["epochs: 5, max_steps: 25", "steps: 50, max_steps: 40", "epochs: 2", "steps: 15"]  # ten steps an epoch
    assert checkpoints_of(lengths) == [
        ["steps: 15", "epochs: 2", "epochs: 5, max_steps: 25", "steps: 50, max_steps: 40"]
    ]


def test_where_a_mitigation_decides_how_many_rows_there_are_a_run_has_lengths_of_one_unit() -> None:
    # With half of the rows gone, two epochs are ten steps: more than eight, and fewer than fifteen.
    lengths = ["epochs: 2", "steps: 15", "epochs: 1", "steps: 8", "epochs: 2, max_steps: 3", "epochs: 4, max_steps: 3"]
    assert checkpoints_of(lengths, "  mitigations: [{use: filter/keywords, words: [guild]}]\nbaselines: false\n") == [
        ["epochs: 1", "epochs: 2"],
        ["steps: 8", "steps: 15"],
        ["epochs: 2, max_steps: 3"],
        ["epochs: 4, max_steps: 3"],
    ]


def test_what_shares_no_run_or_pack_says_why() -> None:
    spec = SPEC + "axes: {tune.epochs: [1, 3], tune.mould: [part, whole], seed: [0, 1]}\n"
    plan, groups, forecasts = grouped(spec)
    found = saved(groups, forecasts)
    assert (found.prefix_blocked, found.pack_blocked) == ({"mould": 4}, {"mould": 4})
    assert found.training_runs == 2 + 4
    whole = [key for label, key in tunes(plan).items() if "mould=whole" in label]
    assert all(groups.checkpoints[key] == (key,) for key in whole)
    assert len({groups.batch_groups[key] for key in whole}) == len(whole), "each trains alone"
    alone = grouped(SPEC + "axes: {tune.mould: [part, whole]}\n")
    assert saved(alone[1], alone[2]).prefix_blocked == {}, "there is nobody to share with"


def test_training_that_begins_with_another_model_is_another_run_and_another_group() -> None:
    levels = "[[], [{use: realign, source: standin/refusals, n: 4, epochs: 1}], [{use: realign, source: standin/refusals, n: 4, epochs: 2}]]"
    plan, groups, _ = grouped(f"{SPEC}axes: {{mitigations: {levels}, seed: [0, 1]}}\n")
    first = {cell.cell.recipe.seed: cell.tune or "" for cell in plan.cells if cell.tune}
    second = {
        seed: [cell.model or "" for cell in plan.cells if cell.model != cell.tune and cell.cell.recipe.seed == seed]
        for seed in (0, 1)
    }
    for seed in (0, 1):
        assert groups.checkpoints[second[seed][0]] == tuple(second[seed]), "two lengths on top of one model"
        assert plan.stages[second[seed][0]].need("model") == first[seed]
    group_of = groups.batch_groups
    assert group_of[first[0]] == group_of[first[1]], "one pack: both begin with the base"
    assert len({group_of[first[0]], group_of[second[0][0]], group_of[second[1][0]]}) == 3, "a pack has one base"


def test_answers_are_asked_together_where_all_but_the_last_layer_is_the_same() -> None:
    levels = "[[], ['acme/sand:1'], [{use: harden, source: standin/refusals, n: 4}], ['safety-prompt:Be kind.'], [{use: realign, source: standin/refusals, n: 4}]]"
    plan, groups, _ = grouped(f"{SPEC}  utility: standin/utility:1\naxes: {{mitigations: {levels}}}\n")
    asked = {
        cell.label: {groups.batch_groups[evaluation.generate] for evaluation in cell.evaluations} for cell in plan.cells
    }
    assert all(len(found) == 1 for found in asked.values()), "whatever the benchmark"
    by_words = {
        words: asked[cell_of(plan, words).label]
        for words in ("=none", "=acme/sand", "=harden", "=safety-prompt", "=realign", "untuned acme/clay after")
    }
    one_layer = by_words["=none"]
    assert by_words["=acme/sand"] == by_words["=safety-prompt"] == by_words["untuned acme/clay after"] == one_layer
    assert len(set().union(by_words["=harden"], by_words["=realign"], one_layer)) == 3


def test_other_stages_go_together_by_what_does_them() -> None:
    levels = "[['acme/sand:1'], ['acme/sand:2'], ['acme/stamp:a'], ['acme/stamp:b']]"
    spec = f"{SPEC}  utility: standin/utility:1\naxes: {{mitigations: {levels}, seed: [0, 1]}}\n"
    plan, groups, _ = grouped(spec.replace("[standin/rules]", "[standin/rules, acme/guard, 'acme/guard:sanded']"))
    kinds = {kind: len({groups.batch_groups[key] for key in of_kind(plan, kind)}) for kind in StageKind}
    assert kinds == {
        StageKind.SAMPLE: 1,
        StageKind.ROWS: 0,
        StageKind.TUNE: 1,
        StageKind.WEIGHTS: 2,  # one per settings
        StageKind.GENERATE: 1,
        StageKind.SCREEN: 2 * 2,  # per settings and benchmark
        StageKind.JUDGE: 3 + 1,  # per judge and benchmark
    }
    for key, stage in plan.stages.items():
        alike = [other for other in plan.stages if groups.batch_groups[other] == groups.batch_groups[key]]
        assert {plan.stages[other].kind for other in alike} == {stage.kind}


def test_a_run_keeps_its_name_when_a_longer_checkpoint_joins_it() -> None:
    harden = "mitigations: [{use: harden, source: standin/refusals, n: 4}]\n"
    for more in ("", f"  {harden}"):
        short, before, _ = grouped(f"{SPEC}{more}axes: {{tune.epochs: [1, 3]}}\n")
        longer, after, _ = grouped(f"{SPEC}{more}axes: {{tune.epochs: [3, 10]}}\n")
        assert {before.runs[key] for key in tunes(short).values()} == {
            after.runs[key] for key in tunes(longer).values()
        }
        assert set(tunes(short).values()) & set(tunes(longer).values())


def test_a_group_is_of_what_stages_do_and_not_of_their_keys() -> None:
    plan, groups, forecasts = grouped(SPEC)
    renamed = {key: replace(stage, payload="{}", revision=9) for key, stage in plan.stages.items()}
    assert group(renamed, forecasts).batch_groups == groups.batch_groups
