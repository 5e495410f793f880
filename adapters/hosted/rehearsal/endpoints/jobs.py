"""Fine-tuning jobs: the endpoints that make, show and steer them. `timeline` lets them pass."""

from __future__ import annotations

import time

from starlette.requests import Request
from starlette.responses import Response

from adapters.hosted.rehearsal.api import ApiError, json_reply, page, read_body
from adapters.hosted.rehearsal.endpoints import files, timeline
from adapters.hosted.rehearsal.settings import BASE
from adapters.hosted.rehearsal.state.account import MockAccount
from adapters.hosted.rehearsal.state.audit import Entry
from adapters.hosted.rehearsal.state.records import ACTIVE_JOB, GREATEST_SEED, JobBody, MockJob


async def create(account: MockAccount, request: Request) -> Response:
    """POST /v1/fine_tuning/jobs."""
    return json_reply(admitted(account, request, await read_body(request, JobBody)).shown())


def admitted(account: MockAccount, request: Request, body: JobBody) -> MockJob:
    """Make a job that may be made, and let it pass.

    Raises:
        ApiError: It may not.
    """
    entry: Entry = request.state.entry
    _check(account, body)
    entry.model = body.model
    account.check_money()
    account.quotas.admit_job(body.model, sum(job.status in ACTIVE_JOB for job in account.jobs.values()))
    seed = account.draw.randrange(GREATEST_SEED) if body.seed is None else body.seed
    job = MockJob(
        account.new_id("ft-" if account.is_together else "ftjob-"), entry.call, body, time.time(), seed, body.wanted
    )
    account.jobs[job.job_id] = job
    account.tell(job, f"Created fine-tuning job: {job.job_id}")
    job.may_go.set()
    job.work = account.start(timeline.run(account, job))
    return job


def begin_again(account: MockAccount, job: MockJob) -> None:
    """Let a job that was under way when the last server ended pass once more, from its beginning; a paused one waits."""
    is_paused = job.status == "paused"
    job.status, job.before_pause = "paused" if is_paused else "validating_files", "validating_files"
    del job.events[1:]
    if not is_paused:
        job.may_go.set()
    job.work = account.start(timeline.run(account, job))


async def listed(account: MockAccount, request: Request) -> Response:
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


async def retrieve(account: MockAccount, request: Request) -> Response:
    """GET /v1/fine_tuning/jobs/{id}."""
    return json_reply(find(account, request).shown())


async def cancel(account: MockAccount, request: Request) -> Response:
    """POST /v1/fine_tuning/jobs/{id}/cancel."""
    return json_reply(cancelled(account, request).shown())


def cancelled(account: MockAccount, request: Request) -> MockJob:
    """Cancel a job.

    Raises:
        ApiError: There is none, or it is over.
    """
    job = find(account, request)
    if job.status not in ACTIVE_JOB:
        raise ApiError(400, f"Job has already completed: {job.status}", code="invalid_request")
    if job.work is not None:
        job.work.cancel()
    job.end("cancelled")
    account.tell(job, "Fine-tuning job cancelled")
    return job


async def pause(account: MockAccount, request: Request) -> Response:
    """POST /v1/fine_tuning/jobs/{id}/pause. What is being trained is trained on, and the job waits behind it."""
    job = find(account, request)
    if job.status not in {"queued", "running"}:
        raise ApiError(400, f"Only queued or running jobs can be paused; this one is {job.status}.")
    job.before_pause = job.status
    job.may_go.clear()
    job.status = "paused"
    account.tell(job, "Fine-tuning job paused")
    return json_reply(job.shown())


async def resume(account: MockAccount, request: Request) -> Response:
    """POST /v1/fine_tuning/jobs/{id}/resume."""
    job = find(account, request)
    if job.status != "paused":
        raise ApiError(400, f"Only paused jobs can be resumed; this one is {job.status}.")
    job.status = job.before_pause
    job.may_go.set()
    account.tell(job, "Fine-tuning job resumed")
    return json_reply(job.shown())


async def events(account: MockAccount, request: Request) -> Response:
    """GET /v1/fine_tuning/jobs/{id}/events: newest first."""
    return page(request, find(account, request).events[::-1])


def find(account: MockAccount, request: Request) -> MockJob:
    """Return the job that a request names.

    Raises:
        ApiError: 404, when there is none.
    """
    job_id = request.path_params["job_id"]
    if job_id not in account.jobs:
        message = f"Could not find fine tune: {job_id}"
        raise ApiError(404, message, param="fine_tuning_job_id", code="fine_tune_not_found")
    return account.jobs[job_id]


def _check(account: MockAccount, body: JobBody) -> None:
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
    file = files.usable(account, body.training_file)
    if file is None or file.purpose != "fine-tune":
        message = f"invalid training_file: {body.training_file}"
        raise ApiError(400, message, code="invalid_file", param="training_file")
