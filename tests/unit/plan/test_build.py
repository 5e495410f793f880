"""What the planner shares, merges and adds."""

from __future__ import annotations

import json

import pytest

from engine.domain.errors import PlanError
from engine.domain.stage import StageKind
from engine.plan.fingerprint import canonical, stage_key

from .plans import count, of_kind, plan_of

BASE = """\
sweep: shared
recipe:
  model: standin/aligned
  data: {source: standin/explicit, n: 10}
  tune: {lr: 1e-3}
  benchmark: standin/policy
  utility: standin/utility
  judges: [standin/rules, refusal/keywords]
"""


def test_every_key_is_the_hash_of_its_payload_and_inputs_come_first() -> None:
    plan = plan_of(BASE + "axes: {seed: [0, 1], data.source: [standin/explicit, standin/identity]}\n")
    seen = set()
    for key, stage in plan.stages.items():
        assert key == stage.key == stage_key(stage.kind, stage.payload)
        assert stage.payload == canonical(json.loads(stage.payload))
        assert set(stage.needs) <= seen
        seen.add(key)
    assert {key for cell in plan.cells for key in cell.stages} == seen


def test_cells_share_samples_and_one_baseline() -> None:
    plan = plan_of(BASE + "axes: {tune.lr: [1e-3, 2e-3], tune.epochs: [1, 2], seed: [0, 1]}\n")
    assert (plan.counts.tuned, plan.counts.baselines) == (8, 1)
    assert count(plan) == {"sample": 2, "tune": 8, "generate": 9 * 2, "judge": 9 * 3}, "one sample per seed"
    (baseline,) = [cell for cell in plan.cells if cell.is_baseline]
    assert {cell.baseline_id for cell in plan.cells if not cell.is_baseline} == {baseline.cell_id}


def test_a_source_with_a_system_prompt_has_a_baseline_under_that_prompt() -> None:
    plan = plan_of(BASE + "axes: {data.source: [standin/explicit, standin/identity]}\n")
    explicit, identity, *baselines = plan.cells
    assert [cell.system for cell in baselines] == [explicit.system, identity.system]
    assert identity.system is not None
    assert explicit.baseline_id != identity.baseline_id
    assert baselines[1].label == "untuned standin/aligned, system prompt of standin/identity"
    (asked,) = [cell for cell in plan_of(BASE + "  generate: {system: Be kind.}\n").cells if cell.is_baseline]
    assert asked.label == "untuned standin/aligned, system prompt 'Be kind.'", "it is not the source's"


def test_a_second_judge_costs_no_second_answer() -> None:
    one, two = plan_of(BASE.replace(", refusal/keywords", "")), plan_of(BASE)
    assert of_kind(one, StageKind.GENERATE) == of_kind(two, StageKind.GENERATE)
    assert set(one.stages) < set(two.stages)


def test_sampled_answers_depend_on_the_seed_and_greedy_ones_do_not() -> None:
    greedy = plan_of(BASE + "axes: {seed: [0, 1]}\n")
    sampled = plan_of(BASE + "  generate: {temperature: 0.7}\naxes: {seed: [0, 1]}\n")
    assert (greedy.counts.baselines, sampled.counts.baselines) == (1, 2)


def test_what_runs_where_is_no_part_of_a_key() -> None:
    plain, elsewhere = plan_of(BASE), plan_of(BASE + "run: {resources: {hosts: 7}, keep_weights: true}\n")
    assert plain.spec_sha256 == elsewhere.spec_sha256
    assert plain.stages == elsewhere.stages


def test_a_mitigation_that_refuses_says_why() -> None:
    untuned = BASE.replace("  data: {source: standin/explicit, n: 10}\n  tune: {lr: 1e-3}\n", "")
    with pytest.raises(PlanError, match="the mitigation `mix:standin/refusals@5` refuses this recipe") as caught:
        plan_of(untuned + "  mitigations: ['mix:standin/refusals@5']\n")
    assert "not tuned" in caught.value.what


def test_a_sweep_that_holds_the_untuned_cell_gets_no_second_one() -> None:
    text = "sweep: untuned\nrecipe:\n  model: standin/aligned\n  benchmark: standin/policy\n  judges: [standin/rules]\n"
    plan = plan_of(text)
    assert (plan.counts.cells, plan.counts.baselines, plan.cells[0].baseline_id) == (1, 0, None)


def test_without_baselines_nothing_is_added_or_paired() -> None:
    plan = plan_of(BASE + "  mitigations: ['mix:standin/refusals@5']\nbaselines: false\n")
    (cell,) = plan.cells
    assert (cell.baseline_id, cell.unmitigated_id) == (None, None)
