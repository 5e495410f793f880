"""The server's own endpoints, which no provider has: the audit, and the switches of its faults. They need no key."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from adapters.hosted.rehearsal.api import ApiError, json_reply, read_body
from adapters.hosted.rehearsal.settings import Fault
from adapters.hosted.rehearsal.state.account import MockAccount


class FaultsBody(BaseModel):
    """The faults from now on."""

    model_config = ConfigDict(extra="forbid")

    faults: Annotated[tuple[Fault, ...], Field(strict=False)]


async def audit(account: MockAccount, request: Request) -> Response:
    """GET /__audit: what really happened; with `?log=1`, request by request."""
    jobs = [
        {
            "id": job.job_id,
            "status": job.status,
            "training_file": job.body.training_file,
            "metadata": job.body.metadata,
            "trained_tokens": job.trained_tokens,
            "fine_tuned_model": job.fine_tuned_model,
        }
        for job in account.jobs.values()
    ]
    truth = account.audit.shown(with_log=request.query_params.get("log") == "1")
    return json_reply({"jobs_created": len(jobs), "jobs": jobs, "batches_created": len(account.batches), **truth})


async def faults(account: MockAccount, request: Request) -> Response:
    """GET or POST /__faults: which faults are on; a body replaces all of them."""
    if request.method == "POST":
        try:
            account.faults.arm((await read_body(request, FaultsBody)).faults)
        except ApiError as error:
            return json_reply(error.body, error.status)
    return json_reply({"faults": account.faults.shown()})
