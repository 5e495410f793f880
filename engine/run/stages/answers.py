"""Generate and screen stages: ask models, and have mitigations screen what they answer."""

from __future__ import annotations

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
    """Answer the benchmarks of a batch together; raises StoppedError when the run is to stop."""
    generator = registry.adapter(Kind.GENERATOR, batch.stages[0].adapter)
    tasks = {}
    for stage in batch.stages:
        try:
            tasks[stage.key] = _task(stage, batch, place)
        except Exception as error:  # noqa: BLE001 - handed on; the others can be asked
            yield stage.key, error
    for key, made in generator.generate(list(tasks.values()), place.context) if tasks else ():
        yield key, made if isinstance(made, Exception) else _answers(tasks[key], made)
        place.context.pulse.beat(key, 1, 1)  # for generators that say nothing themselves


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
        fit=batch.fits.get(stage.key),
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
        raise TypeError(f"`{work.use.name}` inserts a screen stage and has no `screen`")
    responses = responses_of(dict(stage.inputs)["responses"], batch, place)
    prompts = {prompt.prompt_id: prompt for prompt in inputs.prompts(place.context.warm, work.benchmark)}
    guard = stage.need("verdicts")
    found = {} if guard is None else verdicts_of(guard, batch, place)
    verdicts = None if guard is None else [found[place_of(response)] for response in responses]
    asked = [prompts[response.prompt_id] for response in responses]
    screened = screener.screen(work.use.settings, asked, responses, verdicts)
    if [*map(place_of, screened)] != [*map(place_of, responses)]:
        raise ValueError(f"`{work.use}` gave {len(screened)} responses that are not to the {len(responses)} prompts")
    return Made({"responses": shards.response_rows(stage.key, screened)}, Usage())


def responses_of(key: str, batch: StageBatch, place: Place) -> list[Response]:
    """Return the responses that a generate or screen stage gave."""
    rows = shards.read_rows(place.run, batch.shard(key, "responses"), key)
    known = Response.__dataclass_fields__  # shards of earlier releases lack the younger ones
    return [
        Response(**{name: row[name] for name in known if name in row} | {"finish": Finish(row["finish"])})
        for row in rows
    ]


def verdicts_of(key: str, batch: StageBatch, place: Place) -> dict[tuple[str, int], Verdict]:
    """Return the verdicts that a judge stage gave, by prompt and sample."""
    rows = shards.read_rows(place.run, batch.shard(key, "verdicts"), key)
    return {
        (row["prompt_id"], row["sample"]): Verdict(Outcome(row["outcome"]), row["score"], row["reason"]) for row in rows
    }


def place_of(answer: Response) -> tuple[str, int]:
    """Return what a response answers: the prompt, and which sample of it."""
    return answer.prompt_id, answer.sample
