"""Tune and weights stages: make models of models."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from engine import registry
from engine.domain.adapters import Kind
from engine.domain.cost import Usage
from engine.domain.errors import StoreError
from engine.domain.stage import Stage, TuneWork, WeightsWork
from engine.ports import Checkpoint, TrainingRun, Tuned, WeightsEdit, WeightsEditor
from engine.run.stages.batch import Ended, Made, Place, StageBatch, work_of
from engine.run.stages.rows import rows_of
from engine.store import artifacts, shards


def tune(batch: StageBatch, place: Place) -> Ended:
    """Train the runs of a batch together, and hand on every checkpoint as it is reached."""
    payloads = {stage.key: stage.payload for stage in batch.stages}
    tuner = registry.adapter(Kind.TUNER, batch.stages[0].adapter)
    with ExitStack() as scratches:
        runs = []
        for stages in _runs(batch):
            try:
                runs.append(_training_run(stages, batch, place, scratches))
            except Exception as error:  # noqa: BLE001 - handed on; the others can train
                yield from ((stage.key, error) for stage in stages)
        folders = {checkpoint.key: checkpoint.folder for run in runs for checkpoint in run.checkpoints}
        for key, tuned in tuner.fine_tune(runs, place.context) if runs else ():
            yield key, tuned if isinstance(tuned, Exception) else _kept(place, key, folders[key], payloads[key], tuned)


def _kept(place: Place, key: str, folder: Path, payload: str, tuned: Tuned) -> Made | Exception:
    try:
        artifact = artifacts.keep(place.run, key, folder, payload)
    except StoreError as error:  # the disk; the other checkpoints may find room
        return error
    steps = shards.training_rows(key, tuned.steps, tuned.cut_rows)
    return Made({"training": steps}, tuned.usage, artifact, tuned.after)


def _runs(batch: StageBatch) -> list[list[Stage]]:
    """The checkpoints of each training run, together."""
    runs: dict[str, list[Stage]] = {}
    for stage in batch.stages:
        runs.setdefault(batch.runs[stage.key], []).append(stage)
    return list(runs.values())


def _training_run(stages: Sequence[Stage], batch: StageBatch, place: Place, scratches: ExitStack) -> TrainingRun:
    """Find what a training run needs; its scratch folders go when the stack is left."""
    first = stages[0]
    work = work_of(first, TuneWork)
    return TrainingRun(
        model=place.model(batch, work.base, first.need("model")),
        rows=rows_of(dict(first.inputs)["rows"], batch, place),
        settings=work.use.settings,
        seed=work.seed,
        checkpoints=tuple(_checkpoint(stage, place, scratches) for stage in stages),
        state=artifacts.training_state(place.run, batch.runs[first.key]),
        keep_state=batch.keep_states,
        fit=batch.fits.get(first.key),
    )


def _checkpoint(stage: Stage, place: Place, scratches: ExitStack) -> Checkpoint:
    work = work_of(stage, TuneWork)
    folder = artifacts.scratch(place.run, stage.key)
    scratches.callback(artifacts.discard, folder)  # gone already when the artifact was kept
    return Checkpoint(stage.key, work.length, folder)


def edit(stage: Stage, batch: StageBatch, place: Place) -> Made:
    """Have a mitigation edit weights."""
    work = work_of(stage, WeightsWork)
    editor = registry.adapter(Kind.MITIGATION, work.use.name)
    if not isinstance(editor, WeightsEditor):
        raise TypeError(f"`{work.use.name}` inserts a weights stage and has no `edit_weights`")
    model = place.model(batch, work.base, stage.need("model"))
    start = place.model(batch, work.base, stage.need("start"))
    folder = artifacts.scratch(place.run, stage.key)
    try:
        editor.edit_weights(work.use.settings, WeightsEdit(model, start, folder), place.context)
        if not any(folder.iterdir()):
            raise ValueError(f"`{work.use.name}` wrote no weights")
        return Made({}, Usage(), artifacts.keep(place.run, stage.key, folder, stage.payload))
    finally:
        artifacts.discard(folder)  # gone already when the artifact was kept
