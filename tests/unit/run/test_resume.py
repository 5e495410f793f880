"""What a run directory holds of a plan, and what of that is damaged."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from engine.domain.cost import Charge, Usage
from engine.domain.plan import Plan
from engine.domain.results import Attempt, StageResult
from engine.domain.stage import StageKind, StageState
from engine.run.drive.resume import survey
from engine.store import artifacts, shards
from engine.store.layout import RunDirectory
from engine.store.state import Settled, State

from ..plan.plans import ACME, of_kind, plan_of  # noqa: TID252 - tests are no package

pytestmark = pytest.mark.usefixtures("acme")


@pytest.fixture
def plan() -> Plan:
    return plan_of(ACME + "baselines: false\n")


@pytest.fixture
def kept(plan: Plan, tmp_path: Path) -> RunDirectory:
    """A run whose sample is drawn and whose model is tuned; its weights are kept, and answers are still to come."""
    run = RunDirectory(tmp_path / "run")
    with State.open(run) as state:
        state.adopt(plan)
        for key, stage in plan.stages.items():
            if stage.kind not in {StageKind.SAMPLE, StageKind.TUNE}:
                continue
            table = "samples" if stage.kind is StageKind.SAMPLE else "training"
            place = None
            if stage.kind is StageKind.TUNE:
                folder = artifacts.scratch(run, key)
                (folder / "adapter_model.safetensors").write_bytes(b"weights")
                place = artifacts.keep(run, key, folder, stage.payload)
            result = StageResult(key, (shards.write_shard(run, table, key, []),), place)
            attempt = Attempt(key, "worker-0", 1.0, 2.0, Usage(device_seconds=1.0), result)
            state.settle([Settled(attempt, StageState.DONE, Charge(Decimal()))])
    return run


def test_what_is_done_and_whole_need_not_run(plan: Plan, kept: RunDirectory) -> None:
    found = survey(kept.root, plan)
    done = {*of_kind(plan, StageKind.SAMPLE), *of_kind(plan, StageKind.TUNE)}
    assert (found.cached, found.damaged) == (done, ())


@pytest.mark.parametrize("name", [artifacts.RECORD, "adapter_model.safetensors"])
def test_weights_that_are_needed_and_damaged_are_said_and_made_again(plan: Plan, kept: RunDirectory, name: str) -> None:
    (tune,) = of_kind(plan, StageKind.TUNE)
    (kept.artifacts / tune / name).write_bytes(b"{")
    found = survey(kept.root, plan)
    assert (found.cached, found.damaged) == (set(of_kind(plan, StageKind.SAMPLE)), (tune,))


def test_weights_that_were_deleted_are_made_again_and_no_damage(plan: Plan, kept: RunDirectory) -> None:
    (tune,) = of_kind(plan, StageKind.TUNE)
    with State.open(kept) as state:
        state.forget_artifact(tune)
    artifacts.discard(kept.artifacts / tune)
    found = survey(kept.root, plan)
    assert (found.cached, found.damaged) == (set(of_kind(plan, StageKind.SAMPLE)), ())


def test_a_damaged_shard_puts_its_stage_back(plan: Plan, kept: RunDirectory) -> None:
    (sample,) = of_kind(plan, StageKind.SAMPLE)
    (shard,) = (kept.shards / "samples").iterdir()
    shard.write_bytes(b"")
    found = survey(kept.root, plan)
    assert sample in found.damaged
    assert sample not in found.cached
