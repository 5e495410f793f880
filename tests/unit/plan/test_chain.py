"""What each kind of mitigation makes of a cell, which artifacts its models are made of, and what cells are paired with."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest

from engine import registry
from engine.domain.adapters import Kind, plain
from engine.domain.plan import CellOrigin, Plan, PlannedCell
from engine.domain.stage import StageKind, TuneWork, WorkerKind, artifact_users, artifacts_of, layers
from engine.domain.sweep import Length

from .plans import ACME, count, plan_of

pytestmark = pytest.mark.usefixtures("acme")

HARDEN = "{use: harden, source: standin/refusals, n: 4}"
REALIGN = "{use: realign, source: standin/refusals, n: 2}"
LABEL = "{use: acme/label, first: standin/refusals, last: standin/chores}"
CAST = "{use: acme/cast, source: standin/refusals, n: 4}"
GUARDED = "{use: acme/stamp, text: seen, guard: acme/guard}"


def mitigated(*mitigations: str, more: str = "") -> Plan:
    return plan_of(f"{ACME}  mitigations: [{', '.join(mitigations)}]\n{more}")


def the_cell(plan: Plan) -> PlannedCell:
    (cell,) = [cell for cell in plan.cells if cell.origin is CellOrigin.SWEEP]
    return cell


def outline(plan: Plan, keys: Sequence[str]) -> list[str]:
    """Return stages in words: the kind, the adapter, and the place of each input in the list."""
    places = {key: place for place, key in enumerate(keys)}
    stages = [plan.stages[key] for key in keys]
    return [
        " ".join([stage.kind.value, stage.adapter, *(f"{name}={places[key]}" for name, key in stage.inputs)])
        for stage in stages
    ]


SAMPLE, TUNE = "sample standin/explicit", "tune acme/press rows=0"
ANSWERED = ["generate acme/voice model=1", "judge standin/rules responses=2"]
CHAINS = {
    "none": ([], [SAMPLE, TUNE, *ANSWERED]),
    "rows": (
        ["{use: filter/keywords, words: [guild]}"],
        [SAMPLE, "rows filter/keywords rows=0", "tune acme/press rows=1", "generate acme/voice model=2"],
    ),
    "rows twice, with further samples": (
        [LABEL, "'mix:standin/identity@3'"],
        [
            SAMPLE,
            "sample standin/refusals",
            "sample standin/chores",
            "rows acme/label rows=0 first=1 last=2",
            "sample standin/identity",
            "rows mix rows=3 mix=4",
            "tune acme/press rows=5",
            "generate acme/voice model=6",
        ],
    ),
    "before": (
        [HARDEN],
        [
            "sample standin/refusals",
            TUNE,
            SAMPLE,
            "tune acme/press rows=2 model=1",
            "generate acme/voice model=3",
        ],
    ),
    "before, with an edit of the base's own": (
        [CAST],
        [
            "sample standin/refusals",
            TUNE,
            "weights acme/cast model=1",
            SAMPLE,
            "tune acme/press rows=3 model=2",
            "generate acme/voice model=4",
        ],
    ),
    "after": (
        [REALIGN, "'acme/sand:2'"],
        [
            SAMPLE,
            TUNE,
            "sample standin/refusals",
            "tune acme/press rows=2 model=1",
            "weights acme/sand model=3",
            "generate acme/voice model=4",
        ],
    ),
    "an edit, on top of what was there before": (
        ["acme/sand", HARDEN],
        [
            "sample standin/refusals",
            TUNE,
            SAMPLE,
            "tune acme/press rows=2 model=1",
            "weights acme/sand model=3 start=1",
            "generate acme/voice model=4",
        ],
    ),
    "tune settings": (["'acme/gentle:2'"], [SAMPLE, TUNE, *ANSWERED]),
    "prompt": (["'safety-prompt:Be kind.'"], [SAMPLE, TUNE, *ANSWERED]),
    "screens, of which one has a guard": (
        [GUARDED, "'acme/stamp:last'"],
        [
            SAMPLE,
            TUNE,
            "generate acme/voice model=1",
            "judge acme/guard responses=2",
            "screen acme/stamp responses=2 verdicts=3",
            "screen acme/stamp responses=4",
            "judge standin/rules responses=5",
        ],
    ),
}


@pytest.mark.parametrize("name", CHAINS)
def test_every_kind_of_mitigation_has_its_place(name: str) -> None:
    mitigations, wanted = CHAINS[name]
    plan = mitigated(*mitigations, more="baselines: false\n")
    (cell,) = plan.cells
    assert outline(plan, cell.stages)[: len(wanted)] == wanted
    assert len(cell.stages) - len(wanted) <= 1, "the judge, where it is left out above"


def test_settings_and_the_prompt_are_changed_and_nothing_else() -> None:
    unmitigated = the_cell(mitigated())
    gentle = mitigated("'acme/gentle:2'")
    (cell, twin, baseline) = gentle.cells
    work = gentle.stages[cell.tune or ""].work
    assert isinstance(work, TuneWork)
    assert (str(work.use), work.length) == ("acme/press(force=0.5)", Length(1, None, 1))
    assert cell.cell.recipe.tune == twin.cell.recipe.tune, "a cell's recipe is as the spec has it"
    assert cell.chain[0] == unmitigated.chain[0]
    assert (twin.cell_id, baseline.cell_id) == (unmitigated.cell_id, unmitigated.baseline_id)

    kind = the_cell(mitigated("{use: safety-prompt, text: Be kind., where: replace}"))
    assert (kind.system, kind.chain, unmitigated.system) == ("Be kind.", unmitigated.chain, None)
    both = the_cell(mitigated("'safety-prompt:One.'", "{use: safety-prompt, text: Two., where: after}"))
    assert both.system == "One.\n\nTwo.", "each sees the prompt that the one before it made"


def test_a_guard_runs_where_it_needs_to_and_is_the_same_stage_as_a_judge() -> None:
    plan = plan_of(f"{ACME.replace('standin/rules', 'acme/guard')}axes: {{mitigations: [[], [{GUARDED}]]}}\n")
    plain, guarded, _ = plan.cells
    guard, screen = guarded.evaluations[0].screening
    assert plain.evaluations[0].judges[0].key == guard
    stage = plan.stages[guard]
    assert stage.worker is WorkerKind.MODEL
    assert plan.stages[screen].worker is WorkerKind.CPU
    assert guarded.evaluations[0].judges[0].key not in (guard, screen)


# ---------------------------------------------------------------------------------------------------- layers of models


def test_an_edit_takes_the_place_of_what_it_edited_and_what_is_read_is_every_layer() -> None:
    plan = mitigated(HARDEN, "acme/sand", "acme/sand", REALIGN, more="baselines: false\n")
    (cell,) = plan.cells
    _, hardened, _, tuned, sanded, twice, _, again = cell.chain
    assert [plan.stages[key].kind.value for key in (hardened, tuned, sanded, twice, again)] == [
        "tune",
        "tune",
        "weights",
        "weights",
        "tune",
    ]
    stack = {key: layers(key, plan.stages) for key in (hardened, tuned, sanded, twice, again)}
    assert stack == {
        hardened: (hardened,),
        tuned: (hardened, tuned),
        sanded: (hardened, sanded),
        twice: (hardened, twice),
        again: (hardened, twice, again),
    }
    assert layers(None, plan.stages) == ()
    generate = cell.evaluations[0].generate
    read = {key: artifacts_of(plan.stages[key], plan.stages) for key in cell.stages}
    assert {key: found for key, found in read.items() if found} == {
        tuned: {hardened},
        sanded: {hardened, tuned},
        twice: {hardened, sanded},
        again: {hardened, twice},
        generate: {hardened, twice, again},
    }
    assert artifact_users(plan.stages) == {
        hardened: [tuned, sanded, twice, again, generate],
        tuned: [sanded],
        sanded: [twice],
        twice: [again, generate],
        again: [generate],
    }


# ------------------------------------------------------------------------------------------------- baselines and pairs


@pytest.mark.parametrize(
    ("mitigation", "made_of"),
    [
        ("'safety-prompt:Be kind.'", []),
        (GUARDED, []),
        ("acme/sand", []),
        (HARDEN, ["sample standin/refusals", "tune acme/press rows=0"]),
        (CAST, ["sample standin/refusals", "tune acme/press rows=0", "weights acme/cast model=1"]),
    ],
)
def test_the_baseline_is_the_starting_model_untuned_and_asked_without_the_mitigations(
    mitigation: str, made_of: list[str]
) -> None:
    source = ACME.replace("standin/explicit", "standin/identity")  # which has a system prompt
    plan = plan_of(f"{source}  mitigations: [{mitigation}]\n")
    cell, twin, *baselines = plan.cells
    system = twin.system
    assert system is not None
    assert plan.counts.cells == len(plan.cells) == plan.counts.tuned + 1 + len(baselines)
    baseline = next(found for found in baselines if found.cell_id == cell.baseline_id)
    assert baseline.origin is CellOrigin.BASELINE
    makers = cell.cell.recipe.mitigations if made_of else ()
    assert (baseline.system, baseline.cell.recipe.mitigations) == (system, makers), "what made it tells it from others"
    assert outline(plan, baseline.chain) == made_of
    assert baseline.model == (baseline.chain[-1] if made_of else None)
    assert not baseline.evaluations[0].screening
    assert (baseline.baseline_id, baseline.unmitigated_id) == (None, None)

    assert (twin.origin, twin.cell_id) == (CellOrigin.UNMITIGATED, cell.unmitigated_id)
    assert twin.cell.recipe == cell.cell.recipe.model_copy(update={"mitigations": ()})
    bare = next(found for found in baselines if found.cell_id == twin.baseline_id)
    assert bare.model is None
    assert (bare == baseline) == (not made_of), "the twin of a hardened cell begins with the plain base"
    assert twin.unmitigated_id is None


def test_pairs_that_the_sweep_has_itself_are_not_added() -> None:
    axes = f"axes: {{mitigations: [[{HARDEN}], [acme/sand, {HARDEN}], []], seed: [0, 1]}}\n"
    plan = plan_of(ACME + axes)
    assert (plan.counts.tuned, plan.counts.unmitigated) == (6, 0)
    by_label = {cell.label: cell for cell in plan.cells}
    assert len(by_label) == len(plan.cells)
    for seed in (0, 1):
        plain = by_label[f"mitigations=none seed={seed}"]
        for cell in plan.cells:
            if cell.cell.recipe.mitigations and cell.cell.recipe.seed == seed and not cell.is_baseline:
                assert cell.unmitigated_id == plain.cell_id
    assert all(cell.origin is not CellOrigin.UNMITIGATED for cell in plan.cells)
    assert plan.counts.baselines == 3, "the base, and a hardened one per seed"


def test_twins_are_added_once_without_what_the_mitigations_are_told() -> None:
    axes = "axes: {mitigations.scale.factor: [0.25, 0.5], seed: [0, 1]}\n"
    plan = plan_of(f"{ACME}  mitigations: [{{use: scale, factor: 0.5}}]\n{axes}")
    twins = [cell for cell in plan.cells if cell.origin is CellOrigin.UNMITIGATED]
    assert [twin.label for twin in twins] == ["seed=0", "seed=1"]
    assert [cell.unmitigated_id for cell in plan.cells[:4]] == [
        twins[cell.cell.recipe.seed].cell_id for cell in plan.cells[:4]
    ]


def test_an_untuned_cell_with_a_mitigation_is_paired_with_the_base_in_both_ways() -> None:
    untuned = "\n".join(line for line in ACME.splitlines() if "data:" not in line and "tune:" not in line)
    plan = plan_of(f"{untuned}\n  mitigations: ['safety-prompt:Be kind.']\n")
    cell, baseline = plan.cells
    assert cell.baseline_id == cell.unmitigated_id == baseline.cell_id
    assert (cell.system, baseline.system) == ("Be kind.", None)


NEUTRAL = {
    "acme/gentle": {},
    "acme/sand": {},
    "acme/stamp": {},
    "filter/keywords": {},
    "harden": {"source": "standin/refusals"},
    "mix": {"source": "standin/refusals"},
    "output-filter": {"guard": "standin/rules"},
    "realign": {"source": "standin/refusals"},
    "safety-prompt": {},
    "scale": {},
}
"""What each mitigation must be told besides, so that it can be told to change nothing."""


def test_a_mitigation_at_zero_strength_is_the_unmitigated_cell_keys_and_all() -> None:
    adapters = {name: registry.adapter(Kind.MITIGATION, name) for name in registry.names(Kind.MITIGATION)}
    assert {name for name, found in adapters.items() if found.neutral} == set(NEUTRAL)
    unmitigated = plan_of(ACME)
    for name, told in NEUTRAL.items():
        use = registry.INSTALLED.use(Kind.MITIGATION, {"use": name, **told, **adapters[name].neutral})
        plan = plan_of(f"{ACME}  mitigations: [{json.dumps(plain(use) | told | dict(adapters[name].neutral))}]\n")
        assert the_cell(plan).cell.recipe.mitigations == (use,)
        assert plan.stages == unmitigated.stages, name
        cell, baseline = plan.cells
        assert [cell.cell_id, baseline.cell_id] == [found.cell_id for found in unmitigated.cells]
        assert cell.unmitigated_id is None, "it is its own"
    (merged, _) = plan_of(f"{ACME}axes: {{mitigations: [['acme/sand:0'], [], ['acme/stamp']]}}\n").cells
    assert merged.cell_id == unmitigated.cells[0].cell_id


def test_screens_prompts_and_edits_reuse_the_one_training_run() -> None:
    levels = [
        "[]",
        *(f"['safety-prompt:{text}']" for text in "ab"),
        *(f"['acme/stamp:{text}']" for text in "cde"),
        f"[{GUARDED}]",
        *(f"['acme/sand:{strength}']" for strength in (1, 2, 3)),
        "['acme/sand:3', 'safety-prompt:a', 'acme/stamp:c']",
    ]
    plan = plan_of(f"{ACME}axes: {{mitigations: [{', '.join(levels)}]}}\n")
    assert (plan.counts.tuned, plan.counts.unmitigated, plan.counts.baselines) == (len(levels), 0, 1)
    assert count(plan) == {
        "sample": 1,
        "tune": 1,
        "weights": 3,
        "generate": 1 + 2 + 3 + 1 + 1,  # plain, prompts, edits, all three, and the baseline
        "screen": 3 + 1 + 1,
        "judge": len(levels) + 1 + 1,  # one per cell, the baseline's, and the guard
    }
    assert {cell.tune for cell in plan.cells if not cell.is_baseline} == {plan.cells[0].tune}


def test_everything_on_one_axis_shares_what_comes_before_it() -> None:
    levels = [f"[{', '.join(mitigations)}]" for mitigations, _ in CHAINS.values()]
    plan = plan_of(f"{ACME}axes: {{mitigations: [{', '.join(levels)}]}}\n")
    kinds = count(plan)
    own = {"none", "filter", "label", "on the hardened base", "on the cast base", "gentle"}
    assert kinds["tune"] == len(own) + 2, "hardening and casting tune the base in the same way; and the realignment"
    assert kinds["weights"] == 3
    assert all(plan.stages[key].kind is not StageKind.WEIGHTS for cell in plan.cells if (key := cell.tune))


def test_cells_are_called_by_the_settings_that_they_have() -> None:
    axes = "axes: {mitigations: [[], ['scale:0.5'], ['scale:0.5', 'safety-prompt:Be kind.']], mitigations.scale.factor: [0.25, 0.75]}\n"
    plan = plan_of(ACME + axes)
    assert [cell.label for cell in plan.cells if cell.origin is CellOrigin.SWEEP] == [
        "mitigations=none",
        "mitigations=scale:0.25",
        "mitigations=scale:0.75",
        "mitigations=scale:0.25+safety-prompt:Be kind.",
        "mitigations=scale:0.75+safety-prompt:Be kind.",
    ]
    assert [cell.cell.levels.get("mitigations.scale.factor") for cell in plan.cells[:3]] == [None, 0.25, 0.75]


def test_a_starting_model_says_whose_system_prompt_it_is_asked_with() -> None:
    plan = plan_of(
        ACME.replace("generate: {", "generate: {system: Be kind., ").replace("standin/explicit", "standin/identity")
    )
    (baseline,) = [cell for cell in plan.cells if cell.is_baseline]
    assert baseline.label == "untuned acme/clay, system prompt 'Be kind.'"


def test_a_setting_within_an_adapter_of_a_mitigation_may_be_swept_with_that_adapter() -> None:
    realign = "{use: realign, source: standin/refusals, n: 2, tuner: {use: local/sft, lr: 1e-3}}"
    axes = "axes: {mitigations.realign.tuner: [{use: local/sft, lr: 1e-3}, {use: local/sft, lr: 2e-3}], mitigations.realign.tuner.rank: [4, 16]}\n"
    plan = mitigated(realign, more=axes)
    labels = [cell.label for cell in plan.cells if cell.origin is CellOrigin.SWEEP]
    assert len(set(labels)) == 4
    assert labels[0] == "tuner=local/sft(rank=4, lr=0.001)"
