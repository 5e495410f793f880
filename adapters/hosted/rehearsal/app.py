"""The application: which path is which endpoint."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import TypeAlias

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from adapters.hosted.rehearsal.api import ApiError, json_reply
from adapters.hosted.rehearsal.endpoints import (
    batches,
    chat,
    control,
    files,
    jobs,
    models,
    together,
)
from adapters.hosted.rehearsal.middleware import Endpoint, guarded
from adapters.hosted.rehearsal.state import memory
from adapters.hosted.rehearsal.state.account import MockAccount
from adapters.hosted.rehearsal.state.records import ACTIVE_BATCH, ACTIVE_JOB

OPENAI_PREFIX = "/v1"
AZURE_PREFIX = "/openai/v1"

Endpoints: TypeAlias = tuple[tuple[str, str, Endpoint], ...]

SHARED: Endpoints = (
    ("POST", "/chat/completions", chat.create),
    ("GET", "/models", models.listed),
    ("GET", "/files", files.listed),
    ("GET", "/files/{file_id}", files.retrieve),
    ("DELETE", "/files/{file_id}", files.delete),
    ("GET", "/files/{file_id}/content", files.content),
)

ENDPOINTS: Endpoints = (
    ("POST", "/moderations", models.moderate),
    ("POST", "/files", files.upload),
    ("POST", "/fine_tuning/jobs", jobs.create),
    ("GET", "/fine_tuning/jobs", jobs.listed),
    ("GET", "/fine_tuning/jobs/{job_id}", jobs.retrieve),
    ("POST", "/fine_tuning/jobs/{job_id}/cancel", jobs.cancel),
    ("POST", "/fine_tuning/jobs/{job_id}/pause", jobs.pause),
    ("POST", "/fine_tuning/jobs/{job_id}/resume", jobs.resume),
    ("GET", "/fine_tuning/jobs/{job_id}/events", jobs.events),
    ("POST", "/batches", batches.create),
    ("GET", "/batches", batches.listed),
    ("GET", "/batches/{batch_id}", batches.retrieve),
    ("POST", "/batches/{batch_id}/cancel", batches.cancel),
)

DEPLOYMENT = (
    "/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.CognitiveServices/accounts/{account}"
    "/deployments/{name}"
)
AZURE_ENDPOINTS: Endpoints = (("PUT", DEPLOYMENT, models.deploy), ("GET", DEPLOYMENT, models.deployment))

TOGETHER_ENDPOINTS: Endpoints = (
    ("POST", "/files/upload", files.upload),
    ("POST", "/fine-tunes", together.create),
    ("GET", "/fine-tunes", together.listed),
    ("GET", "/fine-tunes/{job_id}", together.retrieve),
    ("POST", "/fine-tunes/{job_id}/cancel", together.cancel),
    ("GET", "/fine-tunes/{job_id}/events", together.events),
    ("GET", "/fine-tunes/{job_id}/metrics", together.metrics),
    ("POST", "/batches", together.create_batch),
    ("GET", "/batches", together.batches_listed),
    ("GET", "/batches/{batch_id}", together.retrieve_batch),
    ("POST", "/batches/{batch_id}/cancel", together.cancel_batch),
)


def application(account: MockAccount, ready: Callable[[], None]) -> Starlette:
    """Return the application over an account, which it closes when it ends; `ready` is called when it begins."""
    prefix = AZURE_PREFIX if account.is_azure else OPENAI_PREFIX
    own = TOGETHER_ENDPOINTS if account.is_together else ENDPOINTS
    endpoints = [(method, prefix + path, endpoint) for method, path, endpoint in SHARED + own]
    endpoints += AZURE_ENDPOINTS if account.is_azure else ()
    routes = [Route(path, guarded(account, endpoint), methods=[method]) for method, path, endpoint in endpoints]
    routes += [
        Route("/__audit", partial(control.audit, account), methods=["GET"]),
        Route("/__faults", partial(control.faults, account), methods=["GET", "POST"]),
    ]

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        del app
        _go_on(account)
        ready()
        yield
        await account.close()
        memory.keep(account)
        if account.lock is not None:
            account.lock.release()

    return Starlette(routes=routes, lifespan=lifespan, exception_handlers={404: _unknown, 405: _unknown})


def _go_on(account: MockAccount) -> None:
    """Let pass on what was under way when the last server ended."""
    for job in account.jobs.values():
        if job.status in ACTIVE_JOB:
            jobs.begin_again(account, job)
    for batch in account.batches.values():
        if batch.status in ACTIVE_BATCH:
            batches.go_on(account, batch)


async def _unknown(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 404
    return json_reply(ApiError(status, f"Invalid URL ({request.method} {request.url.path})").body, status)
