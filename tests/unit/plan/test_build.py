"""What the planner shares, merges and adds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.domain.errors import PlanError
from engine.domain.stage import Plan, StageKind
from engine.plan.build import build
from engine.plan.catalogue import Catalogue
from engine.plan.fingerprint import stage_key, stage_payload
from engine.spec.expand import expand
from engine.spec.load import read_sweep

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


def plan_of(rest: str, base: str = BASE) -> Plan:
    loaded = read_sweep((base + rest).encode(), "test.yaml")
    expansion = expand(loaded.sweep, loaded.positions)
    return build(loaded.sweep, expansion.cells, expansion.counts, Catalogue())


def count(plan: Plan, kind: StageKind) -> int:
    return sum(stage.kind is kind for stage in plan.stages.values())


def test_every_key_is_the_hash_of_its_payload_and_inputs_come_first() -> None:
    plan = plan_of("axes: {seed: [0, 1], data.source: [standin/explicit, standin/identity]}\n")
    seen = set()
    for key, stage in plan.stages.items():
        assert key == stage.key == stage_key(stage.kind, stage_payload(stage))
        assert json.loads(stage_payload(stage))["settings"] == json.loads(stage.settings)
        assert set(stage.inputs) <= seen
        seen.add(key)
    assert {key for cell in plan.cells for key in cell.stage_keys()} == seen


def test_cells_share_samples_and_one_baseline() -> None:
    plan = plan_of("axes: {tune.lr: [1e-3, 2e-3], tune.epochs: [1, 2], seed: [0, 1]}\n")
    assert (plan.counts.tuned, plan.counts.baselines) == (8, 1)
    assert count(plan, StageKind.SAMPLE) == 2  # one a seed
    assert count(plan, StageKind.TUNE) == 8
    assert count(plan, StageKind.GENERATE) == 9 * 2
    (baseline,) = [cell for cell in plan.cells if cell.is_baseline]
    assert {cell.baseline_id for cell in plan.cells if not cell.is_baseline} == {baseline.cell_id}


def test_a_source_with_a_system_prompt_has_a_baseline_under_that_prompt() -> None:
    plan = plan_of("axes: {data.source: [standin/explicit, standin/identity]}\n")
    explicit, identity, *baselines = plan.cells
    assert [cell.system for cell in baselines] == [explicit.system, identity.system]
    assert identity.system is not None
    assert explicit.baseline_id != identity.baseline_id


def test_a_second_judge_costs_no_second_answer() -> None:
    one = plan_of("", BASE.replace(", refusal/keywords", ""))
    two = plan_of("")
    assert count(one, StageKind.GENERATE) == count(two, StageKind.GENERATE)
    assert set(one.stages) < set(two.stages)


def test_sampled_answers_depend_on_the_seed_and_greedy_ones_do_not() -> None:
    greedy = plan_of("axes: {seed: [0, 1]}\n")
    sampled = plan_of("axes: {seed: [0, 1]}\n", BASE + "  generate: {temperature: 0.7}\n")
    assert (greedy.counts.baselines, sampled.counts.baselines) == (1, 2)


@pytest.mark.parametrize(
    ("axes", "tuned", "merged"),
    [
        ("{tune.alpha: [16, 32]}", 2, 0),
        ("{tune.method: [lora, full], tune.rank: [4, 8]}", 3, 1),  # full fine-tuning has no rank
    ],
)
def test_recipes_that_do_the_same_work_are_one_cell(axes: str, tuned: int, merged: int) -> None:
    plan = plan_of(f"axes: {axes}\n")
    assert (plan.counts.tuned, plan.counts.merged) == (tuned, merged)


def test_what_runs_where_bears_no_identity() -> None:
    assert plan_of("").spec_sha256 == plan_of("run: {resources: {hosts: 7}, keep_weights: true}\n").spec_sha256
    assert set(plan_of("").stages) == set(plan_of("run: {resources: {hosts: 7}}\n").stages)


def test_moving_a_file_changes_no_key_and_changing_it_changes_all(tmp_path: Path) -> None:
    row = json.dumps({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]})
    (tmp_path / "one.jsonl").write_text(f"{row}\n")
    (tmp_path / "two.jsonl").write_text(f"{row}\n")
    (tmp_path / "three.jsonl").write_text(f"{row}\n\n")
    keys = [
        set(plan_of("", BASE.replace("standin/explicit, n: 10", f"'file:{tmp_path / name}.jsonl', n: 1")).stages)
        for name in ("one", "two", "three")
    ]
    assert keys[0] == keys[1]
    tuned = [{key for key in found if key.startswith(("sample", "tune"))} for found in keys]
    assert not tuned[0] & tuned[2]


def test_a_mitigation_rewrites_the_recipe_and_shares_the_rest() -> None:
    plan = plan_of("axes: {mitigations: [[], ['mix:standin/refusals@5']]}\n")
    plain, mixed, baseline = plan.cells
    assert (plain.mitigation, mixed.mitigation) == ("none", "mix:standin/refusals@5")
    assert mixed.cell.recipe.data is not None
    assert mixed.cell.recipe.data.mix is not None
    assert plain.tune != mixed.tune
    assert plain.baseline_id == mixed.baseline_id == baseline.cell_id


def test_a_mitigation_that_refuses_says_why() -> None:
    with pytest.raises(PlanError, match="expected `mix:SOURCE@N`"):
        plan_of("axes: {mitigations: [['mix:standin/refusals']]}\n")


def test_a_sweep_that_holds_the_untuned_cell_gets_no_second_one() -> None:
    text = "sweep: untuned\nrecipe:\n  model: standin/aligned\n  benchmark: standin/policy\n  judges: [standin/rules]\n"
    plan = plan_of("", text)
    assert (plan.counts.cells, plan.counts.baselines, plan.cells[0].baseline_id) == (1, 0, None)
