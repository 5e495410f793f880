"""Generate and screen stages: ask models, and have mitigations screen what they answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from engine import registry
from engine.domain.adapters import Kind
from engine.domain.cost import Usage
from engine.domain.results import Finish, Outcome, Response, Verdict
from engine.domain.stage import GenerateWork, ScreenWork, Stage
from engine.ports import Generated, GenerateTask, Screener
from engine.run.stages import inputs
from engine.run.stages.batch import Ended, Made, Place, StageBatch, work_of
from engine.store import shards


def generate(batch: StageBatch, place: Place) -> Ended:
    """Answer the benchmarks of a batch together."""
    generator = registry.adapter(Kind.GENERATOR, batch.stages[0].adapter)
    tasks = {}
    for stage in batch.stages:
        try:
            tasks[stage.key] = _task(stage, batch, place)
        except Exception as error:  # noqa: BLE001 - handed on; the others can be asked
            yield stage.key, error
    for key, made in generator.generate(list(tasks.values()), place.context) if tasks else ():
        yield key, made if isinstance(made, Exception) else _answers(tasks[key], made)


def _task(stage: Stage, batch: StageBatch, place: Place) -> GenerateTask:
    work = work_of(stage, GenerateWork)
    return GenerateTask(
        key=stage.key,
        model=place.model(batch, work.base, stage.need("model")),
        prompts=inputs.prompts(place.context.warm, work.benchmark),
        system=work.system,
        decoding=work.decoding,
        settings=work.use.settings,
        seed=work.seed or 0,
    )


def _answers(task: GenerateTask, made: Generated) -> Made | Exception:
    wanted = len(task.prompts) * task.decoding.samples
    if len(made.responses) != wanted:
        return ValueError(f"the generator gave {len(made.responses)} responses, and {wanted} were asked")
    try:
        return Made({"responses": shards.response_rows(task.key, made.responses)}, made.usage)
    except UnicodeError as error:  # half a character, which has no bytes
        return error


def screen(stage: Stage, batch: StageBatch, place: Place) -> Made:
    """Have a mitigation screen responses."""
    work = work_of(stage, ScreenWork)
    screener = registry.adapter(Kind.MITIGATION, work.use.name)
    if not isinstance(screener, Screener):
        message = f"`{work.use.name}` inserts a screen stage and has no `screen`"
        raise TypeError(message)
    responses = responses_of(stage, batch, place)
    prompts = {prompt.prompt_id: prompt for prompt in inputs.prompts(place.context.warm, work.benchmark)}
    guard = stage.need("verdicts")
    verdicts = None if guard is None else _in_order(verdicts_of(guard, batch, place), responses)
    asked = [prompts[response.prompt_id] for response in responses]
    screened = screener.screen(work.use.settings, asked, responses, verdicts)
    if [_place(response) for response in screened] != [_place(response) for response in responses]:
        message = f"`{work.use}` gave {len(screened)} responses that are not to the {len(responses)} prompts"
        raise ValueError(message)
    return Made({"responses": shards.response_rows(stage.key, screened)}, Usage())


def responses_of(stage: Stage, batch: StageBatch, place: Place) -> list[Response]:
    """Return the responses that a stage is given."""
    key = stage.need("responses")
    if key is None:
        message = f"{stage.key} has no responses"
        raise ValueError(message)
    return [response(row) for row in shards.read_rows(place.run, batch.shard(key, "responses"), key)]


def response(row: Mapping[str, object]) -> Response:
    """Return a response from its row."""
    fields = {name: row[name] for name in Response.__dataclass_fields__}
    return Response(**(fields | {"finish": Finish(str(row["finish"]))}))  # type: ignore[arg-type] # columns of the schema


def verdicts_of(key: str, batch: StageBatch, place: Place) -> dict[tuple[str, int], Verdict]:
    """Return the verdicts that a judge stage gave, by prompt and sample."""
    return verdicts(shards.read_rows(place.run, batch.shard(key, "verdicts"), key))


def verdicts(rows: Sequence[Mapping[str, object]]) -> dict[tuple[str, int], Verdict]:
    """Return verdicts from their rows, by prompt and sample."""
    return {(str(row["prompt_id"]), int(str(row["sample"]))): _verdict(row) for row in rows}


def _verdict(row: Mapping[str, object]) -> Verdict:
    score = row["score"]
    return Verdict(Outcome(str(row["outcome"])), None if score is None else float(str(score)), str(row["reason"]))


def _in_order(found: Mapping[tuple[str, int], Verdict], responses: Sequence[Response]) -> list[Verdict]:
    return [found[_place(response)] for response in responses]


def _place(answer: Response) -> tuple[str, int]:
    return answer.prompt_id, answer.sample
