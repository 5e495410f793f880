"""Fine-tuning jobs: what one is, and the endpoints that make, show and steer them. `timeline` lets them pass."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from starlette.requests import Request
from starlette.responses import Response

from adapters.rehearsal import timeline
from adapters.rehearsal.account import Account
from adapters.rehearsal.audit import Entry
from adapters.rehearsal.quotas import ORGANIZATION
from adapters.rehearsal.settings import BASE
from adapters.rehearsal.wire import ApiError, Json, json_reply, page, read_body

ACTIVE = frozenset({"validating_files", "queued", "running", "pausing", "paused"})
GREATEST_SEED = 2**31

Metadata = Annotated[
    dict[Annotated[str, StringConstraints(max_length=64)], Annotated[str, StringConstraints(max_length=512)]],
    Field(max_length=16),
]


class Hyperparameters(BaseModel):
    """What a job is trained with; `auto` until the server has chosen."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    n_epochs: Literal["auto"] | Annotated[int, Field(ge=1, le=50)] = "auto"
    batch_size: Literal["auto"] | Annotated[int, Field(ge=1, le=256)] = "auto"
    learning_rate_multiplier: Literal["auto"] | Annotated[float, Field(gt=0)] = "auto"


class Supervised(BaseModel):
    """The supervised method."""

    hyperparameters: Hyperparameters = Hyperparameters()


class Method(BaseModel):
    """How to train; this server knows one way."""

    type: str
    supervised: Supervised = Supervised()


class JobBody(BaseModel):
    """The body that creates a job."""

    model_config = ConfigDict(extra="ignore")

    model: str
    training_file: str
    validation_file: str | None = None
    suffix: str | None = Field(default=None, min_length=1, max_length=64)
    seed: int | None = Field(default=None, ge=0, lt=GREATEST_SEED)
    metadata: Metadata | None = None
    method: Method | None = None
    hyperparameters: Hyperparameters | None = None

    @property
    def wanted(self) -> Hyperparameters:
        """The hyperparameters, wherever they stand."""
        return self.method.supervised.hyperparameters if self.method else self.hyperparameters or Hyperparameters()


@dataclass(slots=True)
class Job:
    """One job.

    Attributes:
        job_id: Its id.
        call: The request that made it, for faults.
        body: What was asked for.
        created_at: Seconds since the epoch, UTC.
        seed: Of the training.
        hyperparameters: Those asked for, and resolved once it runs.
        status: Where it stands, in the wire's words.
        before_pause: Where it stood before it was paused.
        fine_tuned_model: What it made.
        finished_at: Seconds since the epoch, UTC.
        trained_tokens: Tokens billed.
        error: Why it failed.
        result_files: The step metrics, once it has succeeded.
        events: Oldest first.
        checkpoints: Oldest first.
        work: What lets it pass.
        may_go: Whether it is not paused.
    """

    job_id: str
    call: str
    body: JobBody
    created_at: float
    seed: int
    hyperparameters: Hyperparameters
    status: str = "validating_files"
    before_pause: str = ""
    fine_tuned_model: str | None = None
    finished_at: float | None = None
    estimated_finish: float | None = None
    trained_tokens: int | None = None
    error: Json | None = None
    result_files: list[str] = field(default_factory=list)
    events: list[Json] = field(default_factory=list)
    checkpoints: list[Json] = field(default_factory=list)
    work: asyncio.Task[None] | None = None
    may_go: asyncio.Event = field(default_factory=asyncio.Event)

    def shown(self) -> Json:
        """Return it as the wire shows it."""
        hyperparameters = self.hyperparameters.model_dump()
        return {
            "object": "fine_tuning.job",
            "id": self.job_id,
            "model": self.body.model,
            "created_at": int(self.created_at),
            "finished_at": None if self.finished_at is None else int(self.finished_at),
            "fine_tuned_model": self.fine_tuned_model,
            "organization_id": ORGANIZATION,
            "result_files": list(self.result_files),
            "status": self.status,
            "validation_file": self.body.validation_file,
            "training_file": self.body.training_file,
            "hyperparameters": hyperparameters,
            "trained_tokens": self.trained_tokens,
            "error": self.error or {},
            "user_provided_suffix": self.body.suffix,
            "seed": self.seed,
            "estimated_finish": None if self.estimated_finish is None else int(self.estimated_finish),
            "integrations": [],
            "metadata": self.body.metadata,
            "usage_metrics": None,
            "shared_with_openai": False,
            "method": {"type": "supervised", "supervised": {"hyperparameters": hyperparameters}},
        }

    def tell(self, account: Account, message: str, level: str = "info", data: Mapping[str, Any] | None = None) -> None:
        """Add an event; one with data is of type `metrics`."""
        self.events.append(
            {
                "object": "fine_tuning.job.event",
                "id": account.new_id("ftevent-"),
                "created_at": int(time.time()),
                "level": level,
                "message": message,
                "type": "metrics" if data else "message",
                "data": dict(data or {}),
            }
        )

    def end(self, status: str) -> None:
        """End it."""
        self.status, self.finished_at, self.estimated_finish = status, time.time(), None


async def create(account: Account, request: Request) -> Response:
    """POST /v1/fine_tuning/jobs."""
    return json_reply(admitted(account, request, await read_body(request, JobBody)).shown())


def admitted(account: Account, request: Request, body: JobBody) -> Job:
    """Make a job that may be made, and let it pass.

    Raises:
        ApiError: It may not.
    """
    entry: Entry = request.state.entry
    _check(account, body)
    entry.model = body.model
    account.check_money()
    account.quotas.admit_job(body.model, sum(job.status in ACTIVE for job in account.jobs.values()))
    seed = account.draw.randrange(GREATEST_SEED) if body.seed is None else body.seed
    job = Job(
        account.new_id("ft-" if account.is_together else "ftjob-"), entry.call, body, time.time(), seed, body.wanted
    )
    account.jobs[job.job_id] = job
    job.tell(account, f"Created fine-tuning job: {job.job_id}")
    job.may_go.set()
    job.work = account.start(timeline.run(account, job))
    return job


def begin_again(account: Account, job: Job) -> None:
    """Let a job that was under way when the last server ended pass once more, from its beginning; a paused one waits."""
    is_paused = job.status in {"pausing", "paused"}
    job.status, job.before_pause = "paused" if is_paused else "validating_files", "validating_files"
    job.checkpoints.clear()
    del job.events[1:]
    if not is_paused:
        job.may_go.set()
    job.work = account.start(timeline.run(account, job))


async def listed(account: Account, request: Request) -> Response:
    """GET /v1/fine_tuning/jobs: newest first, and only those with the metadata that is asked for."""
    wanted = {
        name.removeprefix("metadata[").removesuffix("]"): value
        for name, value in request.query_params.items()
        if name.startswith("metadata[")
    }
    until = account.listed_until(request.state.entry.call)
    found = [
        job.shown()
        for job in reversed(account.jobs.values())
        if wanted.items() <= (job.body.metadata or {}).items() and job.created_at <= until
    ]
    return page(request, found)


async def retrieve(account: Account, request: Request) -> Response:
    """GET /v1/fine_tuning/jobs/{id}."""
    return json_reply(find(account, request).shown())


async def cancel(account: Account, request: Request) -> Response:
    """POST /v1/fine_tuning/jobs/{id}/cancel."""
    return json_reply(cancelled(account, request).shown())


def cancelled(account: Account, request: Request) -> Job:
    """Cancel a job.

    Raises:
        ApiError: There is none, or it is over.
    """
    job = find(account, request)
    if job.status not in ACTIVE:
        raise ApiError(400, f"Job has already completed: {job.status}", code="invalid_request")
    if job.work is not None:
        job.work.cancel()
    job.end("cancelled")
    job.tell(account, "Fine-tuning job cancelled")
    return job


async def pause(account: Account, request: Request) -> Response:
    """POST /v1/fine_tuning/jobs/{id}/pause. What is being trained is trained on, and the job waits behind it."""
    job = find(account, request)
    if job.status not in {"queued", "running"}:
        raise ApiError(400, f"Only queued or running jobs can be paused; this one is {job.status}.")
    job.before_pause = job.status
    job.may_go.clear()
    job.status = "pausing" if account.is_azure else "paused"
    if account.is_azure:
        account.start(timeline.settle_pause(account, job))
    job.tell(account, "Fine-tuning job paused")
    return json_reply(job.shown())


async def resume(account: Account, request: Request) -> Response:
    """POST /v1/fine_tuning/jobs/{id}/resume."""
    job = find(account, request)
    if job.status not in {"pausing", "paused"}:
        raise ApiError(400, f"Only paused jobs can be resumed; this one is {job.status}.")
    job.status = job.before_pause
    job.may_go.set()
    job.tell(account, "Fine-tuning job resumed")
    return json_reply(job.shown())


async def events(account: Account, request: Request) -> Response:
    """GET /v1/fine_tuning/jobs/{id}/events: newest first."""
    return page(request, find(account, request).events[::-1])


async def checkpoints(account: Account, request: Request) -> Response:
    """GET /v1/fine_tuning/jobs/{id}/checkpoints: newest first."""
    return page(request, find(account, request).checkpoints[::-1], default=10, ends=True)


def find(account: Account, request: Request) -> Job:
    """Return the job that a request names.

    Raises:
        ApiError: 404, when there is none.
    """
    job_id = request.path_params["job_id"]
    if job_id not in account.jobs:
        message = f"Could not find fine tune: {job_id}"
        raise ApiError(404, message, param="fine_tuning_job_id", code="fine_tune_not_found")
    return account.jobs[job_id]


def _check(account: Account, body: JobBody) -> None:
    """Refuse what a job cannot be made from.

    Raises:
        ApiError: 400.
    """
    if account.settings.part(body.model) != BASE:
        message = f"Model {body.model} is not available for fine-tuning or does not exist."
        raise ApiError(400, message, code="model_not_available", param="model")
    if body.method is not None and body.method.type != "supervised":
        message = f"The method {body.method.type} is not available on this server."
        raise ApiError(400, message, code="invalid_value", param="method.type")
    for param, file_id in (("training_file", body.training_file), ("validation_file", body.validation_file)):
        file = timeline.usable(account, file_id) if file_id else None
        if file_id and file is None:
            raise ApiError(400, f"invalid {param}: {file_id}", code="invalid_file", param=param)
        if file is not None and file.purpose != "fine-tune":
            message = f"The file {file_id} has the purpose {file.purpose}, and fine-tune is needed."
            raise ApiError(400, message, code="invalid_file", param=param)
