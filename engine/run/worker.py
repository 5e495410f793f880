"""One stage: find its inputs, call its adapter, write what it made. The one place where adapters' errors end."""

from __future__ import annotations

import json
import random
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

from engine import plugins
from engine.domain.cost import Usage
from engine.domain.results import (
    SCALES,
    Attempt,
    ChatRow,
    Failure,
    Finish,
    Measure,
    Prompt,
    Response,
    ShardRef,
    StageResult,
    Verdict,
)
from engine.domain.stage import LocalWeights, Stage, StageKind
from engine.domain.sweep import GenerateRecipe, Resources, TuneRecipe
from engine.plan.fingerprint import pinned, stage_payload
from engine.plugins import Kind, split_ref
from engine.ports import Context, GenerateTask, TuneTask, Warm
from engine.store import artifacts, shards
from engine.store.layout import RunDirectory

MESSAGE_LIMIT = 2_000
TRACEBACK_LIMIT = 20_000


@dataclass(frozen=True, slots=True)
class StageTask:
    """A stage and where its inputs are: all that a host needs to run it.

    Attributes:
        stage: The stage.
        inputs: The shards of the stages that it needs, by key.
    """

    stage: Stage
    inputs: Mapping[str, tuple[ShardRef, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class HostSettings:
    """What a host is made from.

    Attributes:
        run_root: The run directory.
        device: `cpu` or `cuda:0`.
        threads: CPU threads, >= 1.
        generate_batch: Prompts decoded together, >= 1.
    """

    run_root: Path
    device: str
    threads: int
    generate_batch: int


def host_settings(run_root: Path, resources: Resources) -> HostSettings:
    """Return what the run settings say a host is made from."""
    device = "cuda:0" if resources.gpus_per_host else "cpu"
    return HostSettings(run_root.resolve(), device, max(1, int(resources.cpus_per_host)), resources.generate_batch)


def attempt(task: StageTask, host: str, settings: HostSettings, warm: Warm) -> Attempt:
    """Run one stage and return how it went; adapters' exceptions become a `Failure`, with their traceback.

    Args:
        task: What to run.
        host: The host's name, for the record.
        settings: What the host is made from.
        warm: What the host keeps between stages.
    """
    run = RunDirectory(settings.run_root)
    folder = settings.run_root
    started, clock = time.time(), time.monotonic()
    result = failure = None
    try:
        if task.stage.kind is StageKind.TUNE:
            folder = artifacts.scratch(run, task.stage.key)
        context = Context(task.stage.key, folder, settings.device, settings.threads, settings.generate_batch, warm)
        result = _RUNNERS[task.stage.kind](task, run, context)
        result = replace(result, usage=replace(result.usage, device_seconds=time.monotonic() - clock))
    except Exception as error:  # noqa: BLE001 - the error boundary: a failed stage is a row, not a crash
        failure = describe(error)
    finally:
        if folder != settings.run_root:
            artifacts.discard(folder)  # gone already when the artifact was kept
    return Attempt(task.stage.key, host, started, started + time.monotonic() - clock, result, failure)


def describe(error: BaseException) -> Failure:
    """Return an exception as rows and people want it, cut to a sane length."""
    text = "".join(traceback.format_exception(error))
    return Failure(type(error).__name__, _storable(str(error)[:MESSAGE_LIMIT]), _storable(text[-TRACEBACK_LIMIT:]))


def _storable(text: str) -> str:
    """Replace what UTF-8 cannot say: an error may quote anything."""
    return text.encode("utf-8", "replace").decode()


def _sample(task: StageTask, run: RunDirectory, _: Context) -> StageResult:
    settings, binding = json.loads(task.stage.settings), task.stage.binding
    drawn = _draw(binding.data, settings["source"], settings["n"], settings["seed"])
    if "mix" in settings:
        drawn += _draw(binding.mix, settings["mix"]["source"], settings["mix"]["n"], settings["seed"])
    shard = shards.write_shard(run, "samples", task.stage.key, shards.sample_rows(task.stage.key, drawn))
    return StageResult(task.stage.key, (shard,), None, Usage())


def _draw(ref: str, pin: str, n: int, seed: int) -> list[tuple[str, str, str]]:
    """The first n of one seeded permutation, so that 10 examples are a part of the 50, and those of the 100."""
    row_ids = list(_pinned_rows(ref, pin))
    if len(row_ids) < n:
        message = f"{n} rows asked of {ref}, which has {len(row_ids)}"
        raise ValueError(message)
    return [(ref, row_id, pin) for row_id in random.Random(seed).sample(row_ids, len(row_ids))[:n]]  # noqa: S311 - no secret


def _tune(task: StageTask, run: RunDirectory, context: Context) -> StageResult:
    stage = task.stage
    settings = json.loads(stage.settings)
    (sample,) = stage.inputs
    recipe = TuneRecipe.model_validate(settings["tune"] | {"adapter": stage.adapter}, strict=False)
    rows = _sampled_rows(shards.read_rows(run, _only(task.inputs[sample], "samples")))
    tuner = plugins.adapter(Kind.TUNER, stage.adapter)
    tuned = tuner.fine_tune(TuneTask(_base(stage, settings["model"]), rows, recipe, settings["seed"]), context)
    artifact = artifacts.keep(run, stage.key, context.folder, stage_payload(stage))
    shard = shards.write_shard(run, "training", stage.key, shards.training_rows(stage.key, tuned.steps))
    return StageResult(stage.key, (shard,), artifact, tuned.usage)


def _sampled_rows(sampled: Sequence[Mapping[str, object]]) -> list[ChatRow]:
    pools = {ref: _pinned_rows(ref, pin) for ref, pin in {(str(row["source"]), str(row["pin"])) for row in sampled}}
    return [pools[str(row["source"])][str(row["row_id"])] for row in sampled]


def _pinned_rows(ref: str, pin: str) -> dict[str, ChatRow]:
    source = plugins.adapter(Kind.DATA, ref)
    argument = split_ref(ref)[1]
    _still_pinned(ref, pinned(source.card(argument).pin, source.revision), pin)
    return {row.row_id: row for row in source.rows(argument)}


def _generate(task: StageTask, run: RunDirectory, context: Context) -> StageResult:
    stage = task.stage
    settings = json.loads(stage.settings)
    model = _base(stage, settings["model"])
    if stage.inputs:
        model = replace(model, tuned=str(artifacts.locate(run, stage.inputs[0])))
    generator = plugins.adapter(Kind.GENERATOR, stage.adapter)
    recipe = GenerateRecipe.model_validate(settings["generate"] | {"adapter": stage.adapter}, strict=False)
    prompts = _prompts(stage)
    made = generator.generate(
        GenerateTask(model, prompts, settings["system"], recipe, settings.get("seed", 0)), context
    )
    if len(made.responses) != len(prompts) * recipe.samples:
        message = f"{stage.adapter} gave {len(made.responses)} responses to {len(prompts)} x {recipe.samples} asked"
        raise ValueError(message)
    shard = shards.write_shard(run, "responses", stage.key, shards.response_rows(stage.key, made.responses))
    return StageResult(stage.key, (shard,), None, made.usage)


def _judge(task: StageTask, run: RunDirectory, context: Context) -> StageResult:
    stage = task.stage
    (generate,) = stage.inputs
    responses = [_response(row) for row in shards.read_rows(run, _only(task.inputs[generate], "responses"))]
    by_id = {prompt.prompt_id: prompt for prompt in _prompts(stage)}
    judge = plugins.adapter(Kind.JUDGE, stage.binding.judge)
    judged = judge.judge([by_id[response.prompt_id] for response in responses], responses, context)
    _on_scale(stage.binding.judge, judge.measures, judged.verdicts)
    rows = shards.verdict_rows(stage.key, responses, judged.verdicts)
    return StageResult(stage.key, (shards.write_shard(run, "verdicts", stage.key, rows),), None, judged.usage)


def _on_scale(judge: str, measure: Measure, verdicts: Sequence[Verdict]) -> None:
    low, high = SCALES[measure]
    for verdict in verdicts:
        if verdict.score is not None and not low <= verdict.score <= high:
            message = f"{judge} gave {verdict.score}; a judge of {measure.value} scores from {low:g} to {high:g}"
            raise ValueError(message)


_Runner = Callable[[StageTask, RunDirectory, Context], StageResult]
_RUNNERS: Mapping[StageKind, _Runner] = MappingProxyType(
    {StageKind.SAMPLE: _sample, StageKind.TUNE: _tune, StageKind.GENERATE: _generate, StageKind.JUDGE: _judge}
)


def _base(stage: Stage, pin: str) -> LocalWeights:
    ref = stage.binding.model
    source = plugins.adapter(Kind.MODEL, ref)
    argument = split_ref(ref)[1]
    _still_pinned(ref, pinned(source.card(argument).pin, source.revision), pin)
    return source.locate(argument)


def _prompts(stage: Stage) -> Sequence[Prompt]:
    ref = stage.binding.benchmark
    benchmark = plugins.adapter(Kind.BENCHMARK, ref)
    argument = split_ref(ref)[1]
    _still_pinned(ref, pinned(benchmark.card(argument).pin, benchmark.revision), stage.binding.benchmark_pin)
    return benchmark.prompts(argument)


def _still_pinned(ref: str, found: str, planned: str) -> None:
    if found != planned:
        message = f"`{ref}` has changed since it was planned (planned {planned}, found {found}); plan again"
        raise ValueError(message)


def _only(refs: Sequence[ShardRef], table: str) -> ShardRef:
    (found,) = [ref for ref in refs if ref.table == table]
    return found


def _response(row: Mapping[str, object]) -> Response:
    fields = {name: row[name] for name in Response.__dataclass_fields__}
    return Response(**(fields | {"finish": Finish(str(row["finish"]))}))  # type: ignore[arg-type] # columns of the schema
