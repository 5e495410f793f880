"""What each kind of stage does: find its inputs, call its adapter, and hand on what it made, stage by stage."""

from __future__ import annotations

import hashlib
import json
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from engine import registry
from engine.domain.cost import Usage
from engine.domain.results import SCALES, Finish, Measure, Outcome, Response, ShardRef, Verdict
from engine.domain.stage import Stage, StageKind
from engine.domain.sweep import GenerateRecipe, TuneRecipe
from engine.plan.accounts import asking
from engine.plan.fingerprint import stage_payload
from engine.ports import Context, Cut, Generated, GenerateTask, Judge, Trajectory, Tuned
from engine.ports.account import Account, ApiJudge
from engine.ports.provider_errors import ProviderError
from engine.registry import Kind
from engine.run.stages import inputs
from engine.run.stages.asking import Paper, judged, unjudged
from engine.store import artifacts, shards
from engine.store.layout import RunDirectory

VERDICTS_KEPT = 500_000
"""Verdicts that a host remembers per judge and benchmark, so that equal responses are judged once."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """A judge stage that has run: its key and shards, and those of the answers that it judged."""

    key: str
    verdicts: tuple[ShardRef, ...]
    answers_key: str
    answers: tuple[ShardRef, ...]


@dataclass(frozen=True, slots=True)
class Bundle:
    """Stages of one kind and lane that a host runs together, and where their inputs are.

    Attributes:
        stages: The stages, at least one.
        inputs: The shards of the stages that they need, by key.
        runs: For tune stages, the name of each one's trajectory by key; the cuts of one come in order.
        keep_states: Whether what a trajectory needs to go on is kept when it has ended.
        known: For judge stages, what this judge said before, where the host does not remember it.
        account: Name of the account that it runs on; None when it needs none.
        seat: Name of the seat that it was given to; a host may have several.
    """

    stages: tuple[Stage, ...]
    inputs: Mapping[str, tuple[ShardRef, ...]] = field(default_factory=dict)
    runs: Mapping[str, str] = field(default_factory=dict)
    keep_states: bool = False
    known: tuple[Judgement, ...] = ()
    account: str | None = None
    seat: str = ""


@dataclass(frozen=True, slots=True)
class Made:
    """What a stage made: rows by table, its artifact, and what it used; `device_seconds` of 0 means not measured."""

    tables: Mapping[str, Sequence[Mapping[str, object]]]
    usage: Usage
    artifact: str | None = None
    after: str | None = None


Ended = Iterator[tuple[str, Made | Exception]]


def _each(run_stage: Callable[[Stage, Bundle, RunDirectory, Context], Made]) -> Callable[..., Ended]:
    """Run the stages of a bundle one after another; one that fails does not stop the others."""

    def runner(bundle: Bundle, run: RunDirectory, context: Context) -> Ended:
        for stage in bundle.stages:
            begun = time.monotonic()
            try:
                made = run_stage(stage, bundle, run, context)
            except Exception as error:  # noqa: BLE001 - handed on; the worker records it
                yield stage.key, error
            else:
                taken = replace(made.usage, device_seconds=time.monotonic() - begun)
                yield stage.key, replace(made, usage=taken)

    return runner


def _sample(stage: Stage, bundle: Bundle, run: RunDirectory, context: Context) -> Made:
    del bundle, run
    settings, binding = json.loads(stage.settings), stage.binding
    drawn = _draw(context, binding.data, settings, settings["seed"])
    if "mix" in settings:
        drawn += _draw(context, binding.mix, settings["mix"], settings["seed"])
    return Made({"samples": shards.sample_rows(stage.key, drawn)}, Usage())


def _draw(context: Context, ref: str, settings: Mapping[str, Any], seed: int) -> list[tuple[str, str, str]]:
    """The first n of one seeded permutation, so that 10 examples are a part of the 50, and those of the 100."""
    pin, n = settings["source"], settings["n"]
    row_ids = list(inputs.rows(context.warm, ref, pin))
    if len(row_ids) < n:
        message = f"{n} rows asked of {ref}, which has {len(row_ids)}"
        raise ValueError(message)
    return [(ref, row_id, pin) for row_id in random.Random(seed).sample(row_ids, len(row_ids))[:n]]  # noqa: S311 - no secret


def _tune(bundle: Bundle, run: RunDirectory, context: Context) -> Ended:
    payloads = {stage.key: stage_payload(stage) for stage in bundle.stages}
    tuner = registry.adapter(Kind.TUNER, bundle.stages[0].adapter)
    with ExitStack() as scratches:
        trajectories = []
        for stages in _runs(bundle):
            try:
                trajectories.append(_trajectory(stages, bundle, run, context, scratches))
            except Exception as error:  # noqa: BLE001 - handed on; the others can train
                yield from ((stage.key, error) for stage in stages)
        folders = {cut.key: cut.folder for trajectory in trajectories for cut in trajectory.cuts}
        for key, tuned in tuner.fine_tune(trajectories, context) if trajectories else ():
            yield key, tuned if isinstance(tuned, Exception) else _kept(run, key, folders[key], payloads[key], tuned)


def _kept(run: RunDirectory, key: str, folder: Path, payload: str, tuned: Tuned) -> Made | Exception:
    try:
        artifact = artifacts.keep(run, key, folder, payload)
    except OSError as error:
        return error
    return Made({"training": shards.training_rows(key, tuned.steps)}, tuned.usage, artifact, tuned.after)


def _runs(bundle: Bundle) -> list[list[Stage]]:
    """The cuts of each trajectory, together."""
    runs: dict[str, list[Stage]] = {}
    for stage in bundle.stages:
        runs.setdefault(bundle.runs[stage.key], []).append(stage)
    return list(runs.values())


def _trajectory(
    stages: Sequence[Stage], bundle: Bundle, run: RunDirectory, context: Context, scratches: ExitStack
) -> Trajectory:
    """Find what a trajectory needs; its scratch folders go when the stack is left."""
    first = stages[0]
    settings = json.loads(first.settings)
    (sample,) = first.inputs
    drawn = shards.read_rows(run, _only(bundle.inputs[sample], "samples"), sample)
    rows = [inputs.rows(context.warm, str(row["source"]), str(row["pin"]))[str(row["row_id"])] for row in drawn]
    model = inputs.base(context.warm, first, settings["model"])
    cuts = tuple(_cut(stage, run, scratches) for stage in stages)
    state = artifacts.training_state(run, bundle.runs[first.key])
    return Trajectory(model, rows, settings["seed"], cuts, state, bundle.keep_states)


def _cut(stage: Stage, run: RunDirectory, scratches: ExitStack) -> Cut:
    folder = artifacts.scratch(run, stage.key)
    scratches.callback(artifacts.discard, folder)  # gone already when the artifact was kept
    tune = json.loads(stage.settings)["tune"] | {"adapter": stage.adapter}
    return Cut(stage.key, TuneRecipe.model_validate(tune, strict=False), folder)


def _generate(bundle: Bundle, run: RunDirectory, context: Context) -> Ended:
    generator = registry.adapter(Kind.GENERATOR, bundle.stages[0].adapter)
    tasks = {}
    for stage in bundle.stages:
        try:
            tasks[stage.key] = _generate_task(stage, run, context)
        except Exception as error:  # noqa: BLE001 - handed on; the others can be asked
            yield stage.key, error
    for key, made in generator.generate(list(tasks.values()), context) if tasks else ():
        yield key, made if isinstance(made, Exception) else _answers(tasks[key], made)


def _generate_task(stage: Stage, run: RunDirectory, context: Context) -> GenerateTask:
    settings = json.loads(stage.settings)
    model = inputs.base(context.warm, stage, settings["model"])
    if stage.inputs:
        model = replace(model, tuned=str(artifacts.locate(run, stage.inputs[0])))
    recipe = GenerateRecipe.model_validate(settings["generate"] | {"adapter": stage.adapter}, strict=False)
    prompts = inputs.prompts(context.warm, stage)
    return GenerateTask(stage.key, model, prompts, settings["system"], recipe, settings.get("seed", 0))


def _answers(task: GenerateTask, made: Generated) -> Made | Exception:
    wanted = len(task.prompts) * task.settings.samples
    if len(made.responses) != wanted:
        return ValueError(f"the generator gave {len(made.responses)} responses, and {wanted} were asked")
    try:
        return Made({"responses": shards.response_rows(task.key, made.responses)}, made.usage)
    except UnicodeError as error:  # half a character, which has no bytes
        return error


def _judge(bundle: Bundle, run: RunDirectory, context: Context) -> Ended:
    if context.account is not None and (judge := asking(bundle.stages[0].binding.judge)) is not None:
        return _judge_by_asking(judge, context.account, bundle, run, context)
    ended: Ended = _each(_judge_alone)(bundle, run, context)
    return ended


def _judge_alone(stage: Stage, bundle: Bundle, run: RunDirectory, context: Context) -> Made:
    paper = _paper(stage, bundle, run, context)
    given = _given(stage, bundle, run, context)
    usage = _ask(registry.adapter(Kind.JUDGE, stage.binding.judge), paper, given, context)
    return _judgement(paper, given, usage)


def _judge_by_asking(judge: ApiJudge, account: Account, bundle: Bundle, run: RunDirectory, context: Context) -> Ended:
    """Have the whole bundle judged at once: thousands of requests wait together."""
    papers = {}
    for stage in bundle.stages:
        try:
            papers[stage.key] = _paper(stage, bundle, run, context)
        except Exception as error:  # noqa: BLE001 - handed on; the others can be judged
            yield stage.key, error
    if papers:
        given = _given(bundle.stages[0], bundle, run, context)
        for key, usage in judged(list(papers.values()), judge, given, _same, account):
            yield key, usage if isinstance(usage, ProviderError) else _judgement(papers[key], given, usage)


def _paper(stage: Stage, bundle: Bundle, run: RunDirectory, context: Context) -> Paper:
    (generate,) = stage.inputs
    responses = _responses(run, bundle.inputs[generate], generate)
    return Paper(stage, responses, {prompt.prompt_id: prompt for prompt in inputs.prompts(context.warm, stage)})


def _given(stage: Stage, bundle: Bundle, run: RunDirectory, context: Context) -> dict[bytes, Verdict]:
    """What the judge of a bundle has said on this host, or in earlier runs."""
    name = f"{stage.adapter} {stage.revision} {stage.binding.benchmark_pin}"
    slot = f"verdicts of {stage.binding.judge} on {stage.binding.benchmark}"
    given: dict[bytes, Verdict] = context.warm.get(slot, name, dict)
    for judgement in bundle.known if not given else ():
        _recall(given, run, judgement)
    while len(given) > VERDICTS_KEPT:
        given.pop(next(iter(given)))
    return given


def _judgement(paper: Paper, given: Mapping[bytes, Verdict], usage: Usage) -> Made:
    judge = paper.stage.binding.judge
    verdicts = [given[_same(response)] for response in paper.responses]
    _on_scale(judge, registry.adapter(Kind.JUDGE, judge).measures, verdicts)
    return Made({"verdicts": shards.verdict_rows(paper.stage.key, paper.responses, verdicts)}, usage)


def _ask(judge: Judge, paper: Paper, given: dict[bytes, Verdict], context: Context) -> Usage:
    """Have every response judged that has no verdict yet, equal ones once."""
    new = unjudged(paper.responses, given, _same)
    if not new:
        return Usage()
    judged_ = judge.judge([paper.prompts[response.prompt_id] for response in new.values()], list(new.values()), context)
    given.update(zip(new, judged_.verdicts, strict=True))
    return judged_.usage


def _same(response: Response) -> bytes:
    """What makes two responses equal for a judge: the prompt and the text."""
    return hashlib.sha256(f"{response.prompt_id}\0{response.text}".encode("utf-8", "surrogatepass")).digest()[:16]


def _recall(given: dict[bytes, Verdict], run: RunDirectory, known: Judgement) -> None:
    """Take in what this judge said in an earlier run."""
    answers = _responses(run, known.answers, known.answers_key)
    texts = {(response.prompt_id, response.sample): response for response in answers}
    for row in shards.read_rows(run, _only(known.verdicts, "verdicts"), known.key):
        score = row["score"]
        verdict = Verdict(
            Outcome(str(row["outcome"])), None if score is None else float(str(score)), str(row["reason"])
        )
        given[_same(texts[str(row["prompt_id"]), int(str(row["sample"]))])] = verdict


def _on_scale(judge: str, measure: Measure, verdicts: Sequence[Verdict]) -> None:
    low, high = SCALES[measure]
    for verdict in verdicts:
        if verdict.score is not None and not low <= verdict.score <= high:
            message = f"{judge} gave {verdict.score}; a judge of {measure.value} scores from {low:g} to {high:g}"
            raise ValueError(message)


Runner = Callable[[Bundle, RunDirectory, Context], Ended]
RUNNERS: Mapping[StageKind, Runner] = MappingProxyType(
    {
        StageKind.SAMPLE: _each(_sample),
        StageKind.TUNE: _tune,
        StageKind.GENERATE: _generate,
        StageKind.JUDGE: _judge,
    }
)


def _responses(run: RunDirectory, refs: Sequence[ShardRef], generate: str) -> list[Response]:
    return [_response(row) for row in shards.read_rows(run, _only(refs, "responses"), generate)]


def _only(refs: Sequence[ShardRef], table: str) -> ShardRef:
    (found,) = [ref for ref in refs if ref.table == table]
    return found


def _response(row: Mapping[str, object]) -> Response:
    fields = {name: row[name] for name in Response.__dataclass_fields__}
    return Response(**(fields | {"finish": Finish(str(row["finish"]))}))  # type: ignore[arg-type] # columns of the schema
