"""Together's forms of fine-tunes and batches: the same jobs and batches under other names. Its files are OpenAI's here.

Source: the `together` SDK's types and requests (3.1.1), and Together's reference, as of 2026-11.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from adapters.hosted.rehearsal.api import Json, json_reply, read_body
from adapters.hosted.rehearsal.backend.parts import LEARNING_RATE, RANK
from adapters.hosted.rehearsal.endpoints import batches, jobs
from adapters.hosted.rehearsal.state.account import MockAccount
from adapters.hosted.rehearsal.state.records import (
    GREATEST_SEED,
    BatchBody,
    Hyperparameters,
    JobBody,
    MockBatch,
    MockJob,
)

JOB_STATES = {"validating_files": "pending", "succeeded": "completed", "failed": "error"}
"""By OpenAI's; all others have OpenAI's names."""


class TrainingType(BaseModel):
    """What is trained; this server knows LoRA, of one rank."""

    type: Literal["Lora"] = "Lora"
    lora_r: int = Field(default=RANK, ge=RANK, le=RANK)


class TrainingMethod(BaseModel):
    """How to train; this server knows one way, with the loss on the answers."""

    method: Literal["sft"] = "sft"
    train_on_inputs: Literal["auto", False] = "auto"


class TuneBody(BaseModel):
    """The body that creates a fine-tune. The schedule is not looked at: here it is constant."""

    model_config = ConfigDict(extra="ignore")

    model: str
    training_file: str
    suffix: str | None = Field(default=None, min_length=1, max_length=40)
    n_epochs: int = Field(default=1, ge=1, le=50)
    batch_size: Literal["max"] | Annotated[int, Field(ge=1, le=256)] = "max"
    learning_rate: float = Field(default=1e-5, gt=0, lt=1)
    random_seed: int | None = Field(default=None, ge=0, lt=GREATEST_SEED)
    training_type: TrainingType | None = None
    training_method: TrainingMethod = TrainingMethod()

    def job(self) -> JobBody:
        """Return it as OpenAI's body."""
        wanted = Hyperparameters(
            n_epochs=self.n_epochs,
            batch_size="auto" if self.batch_size == "max" else self.batch_size,
            learning_rate_multiplier=self.learning_rate / LEARNING_RATE,
        )
        return JobBody(
            model=self.model,
            training_file=self.training_file,
            suffix=self.suffix,
            seed=self.random_seed,
            hyperparameters=wanted,
        )


async def create(account: MockAccount, request: Request) -> Response:
    """POST /v1/fine-tunes."""
    body = await read_body(request, TuneBody)
    return json_reply(_job(jobs.admitted(account, request, body.job())))


async def listed(account: MockAccount, request: Request) -> Response:
    """GET /v1/fine-tunes: all of them, newest first."""
    until = account.listed_until(request.state.entry.call)
    found = [job for job in reversed(account.jobs.values()) if job.created_at <= until]
    return json_reply({"data": [_job(job) for job in found]})


async def retrieve(account: MockAccount, request: Request) -> Response:
    """GET /v1/fine-tunes/{id}: without its suffix."""
    shown = _job(jobs.find(account, request))
    del shown["suffix"]
    return json_reply(shown)


async def cancel(account: MockAccount, request: Request) -> Response:
    """POST /v1/fine-tunes/{id}/cancel."""
    return json_reply(_job(jobs.cancelled(account, request)) | {"status": "cancel_requested"})


async def events(account: MockAccount, request: Request) -> Response:
    """GET /v1/fine-tunes/{id}/events: oldest first."""
    found = jobs.find(account, request).events
    return json_reply({"data": [{"level": event["level"], "message": event["message"]} for event in found]})


async def metrics(account: MockAccount, request: Request) -> Response:
    """GET /v1/fine-tunes/{id}/metrics."""
    found = [event["data"] for event in jobs.find(account, request).events if "train_loss" in event["data"]]
    rows = [{"train/global_step": data["step"], "train/loss": data["train_loss"]} for data in found]
    return json_reply({"metrics": rows})


async def create_batch(account: MockAccount, request: Request) -> Response:
    """POST /v1/batches."""
    return json_reply({"job": _batch(batches.begun(account, await read_body(request, BatchBody)))}, 201)


async def batches_listed(account: MockAccount, request: Request) -> Response:
    """GET /v1/batches: a bare list, newest first."""
    return json_reply([_batch(batch) for batch in batches.newest_first(account, request)])


async def retrieve_batch(account: MockAccount, request: Request) -> Response:
    """GET /v1/batches/{id}."""
    return json_reply(_batch(batches.find(account, request)))


async def cancel_batch(account: MockAccount, request: Request) -> Response:
    """POST /v1/batches/{id}/cancel."""
    return json_reply(_batch(batches.cancelled(account, request)))


def _job(job: MockJob) -> Json:
    epochs, batch_size, multiplier = job.hyperparameters.resolved()
    return {
        "id": job.job_id,
        "status": JOB_STATES.get(job.status, job.status),
        "created_at": _moment(job.created_at),
        "model": job.body.model,
        "model_output_name": job.fine_tuned_model,
        "training_file": job.body.training_file,
        "n_epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": round(multiplier * LEARNING_RATE, 12),  # as it was sent, but for the last digits
        "token_count": job.trained_tokens or 0,
        "suffix": job.body.suffix,
        "random_seed": job.seed,
    }


def _batch(batch: MockBatch) -> Json:
    return {
        "id": batch.batch_id,
        "endpoint": batch.body.endpoint,
        "input_file_id": batch.body.input_file_id,
        "status": "IN_PROGRESS" if batch.status == "finalizing" else batch.status.upper(),
        "created_at": _moment(batch.created_at),
        "output_file_id": batch.output_file_id,
        "error_file_id": batch.error_file_id,
        "error": "; ".join(problem["message"] for problem in batch.errors) or None,
    }


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
