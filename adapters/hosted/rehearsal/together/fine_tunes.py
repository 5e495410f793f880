"""Together's form of fine-tunes: the same jobs, under other names.

Source: the `together` SDK's types and requests (3.1.1), and Together's reference, as of 2026-11.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from types import MappingProxyType

from pydantic import BaseModel, ConfigDict
from starlette.requests import Request
from starlette.responses import Response

from adapters.hosted.rehearsal.api import ApiError, Json, json_reply, read_body
from adapters.hosted.rehearsal.backend.parts import RANK
from adapters.hosted.rehearsal.endpoints import jobs
from adapters.hosted.rehearsal.state.account import MockAccount
from adapters.hosted.rehearsal.state.audit import price_of
from adapters.hosted.rehearsal.state.records import MockJob, TuneBody

STATES = {"validating_files": "pending", "succeeded": "completed", "failed": "error"}
"""By OpenAI's; all others have OpenAI's names."""

EVENTS = {
    "Created fine-tuning job": "job_pending",
    "Files validated": "training_data_download_complete",
    "Fine-tuning job started": "training_start",
    "Checkpoint created": "checkpoint_save",
    "Evaluating model": "model_compressing",
    "New fine-tuned model": "model_upload_complete",
    "The job has successfully": "job_complete",
    "Fine-tuning job cancelled": "cancel_requested",
    "Moderation checks failed": "job_error",
    "The job failed": "job_error",
}
"""Types of events, by how OpenAI's messages begin; others are not shown."""

METERS: Mapping[str, str] = MappingProxyType(
    {
        "x-ratelimit-limit-requests": "x-ratelimit-limit",
        "x-ratelimit-remaining-requests": "x-ratelimit-remaining",
        "x-ratelimit-reset-requests": "x-ratelimit-reset",
        "x-ratelimit-limit-tokens": "x-tokenlimit-limit",
        "x-ratelimit-remaining-tokens": "x-tokenlimit-remaining",
    }
)
"""What the headers are called that say of the limits. Sources differ on whether there they are a second's or a minute's; here
they are a minute's."""

PICO_A_NANO = 1000


class EstimateBody(BaseModel):
    """The body that asks for a price."""

    model_config = ConfigDict(extra="ignore")

    training_file: str


def headers(found: Mapping[str, str]) -> dict[str, str]:
    """Return what a reply's headers say of the limits, under Together's names."""
    return {METERS[name]: value for name, value in found.items() if name in METERS}


def moment(seconds: float) -> str:
    """Return a moment as the API writes it.

    >>> moment(0.5)
    '1970-01-01T00:00:00.500Z'
    """
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


async def create(account: MockAccount, request: Request) -> Response:
    """POST /v1/fine-tunes."""
    body = await read_body(request, TuneBody)
    return json_reply(_truncated(account, jobs.admitted(account, request, body)))


async def listed(account: MockAccount, request: Request) -> Response:
    """GET /v1/fine-tunes: all of them, newest first."""
    until = account.listed_until(request.state.entry.call)
    found = [job for job in reversed(account.jobs.values()) if job.created_at <= until]
    return json_reply({"data": [_truncated(account, job) for job in found]})


async def retrieve(account: MockAccount, request: Request) -> Response:
    """GET /v1/fine-tunes/{id}: with its events, and without its suffix."""
    job = jobs.find(account, request)
    return json_reply(_shown(account, job) | {"events": _events(job)})


async def cancel(account: MockAccount, request: Request) -> Response:
    """POST /v1/fine-tunes/{id}/cancel."""
    job = jobs.cancelled(account, request)
    return json_reply(_truncated(account, job) | {"status": "cancel_requested"})


async def events(account: MockAccount, request: Request) -> Response:
    """GET /v1/fine-tunes/{id}/events: oldest first."""
    return json_reply({"data": _events(jobs.find(account, request))})


async def metrics(account: MockAccount, request: Request) -> Response:
    """GET /v1/fine-tunes/{id}/metrics."""
    found = [event["data"] for event in jobs.find(account, request).events if "train_loss" in event["data"]]
    rows = [{"train/global_step": data["step"], "train/loss": data["train_loss"]} for data in found]
    return json_reply({"metrics": rows})


async def limits(account: MockAccount, request: Request) -> Response:
    """GET /v1/fine-tunes/models/limits."""
    name = request.query_params.get("model_name", "")
    if name not in account.settings.models:
        raise ApiError(404, f"Model {name} is not available for fine-tuning or does not exist.")
    sizes = {"min_batch_size": 1, "max_batch_size": 256, "max_batch_size_dpo": 0}
    return json_reply(
        {
            "model_name": name,
            "default_gradient_accumulation_steps": 1,
            "lora_training": {**sizes, "max_rank": RANK, "default_rank": RANK, "target_modules": ["all-linear"]},
            "full_training": None,
            "max_num_epochs": 50,
            "max_num_evals": 0,
            "max_num_checkpoints": 3,
            "min_learning_rate": 0.0,
            "max_learning_rate": 1.0,
            "min_max_seq_length": 512,
            "max_seq_length_sft": 512,
            "max_seq_length_dpo": 512,
            "merge_output_lora": True,
            **dict.fromkeys(
                ("supports_full_training", "supports_reasoning", "supports_tools", "supports_vision"), False
            ),
        }
    )


async def estimate(account: MockAccount, request: Request) -> Response:
    """POST /v1/fine-tunes/estimate-price: this server does not say."""
    del account
    await read_body(request, EstimateBody)
    return json_reply({"estimation_available": False, "unavailable_reason": "train_file_not_validated"})


def _shown(account: MockAccount, job: MockJob) -> Json:
    """Return a fine-tune as it is shown alone."""
    body = _body(job)
    tokens = job.trained_tokens or 0
    batch_size = job.hyperparameters.batch_size
    return {
        "id": job.job_id,
        "status": _status(job),
        "user_id": "user-rehearsal",
        "created_at": moment(job.created_at),
        "updated_at": moment(job.finished_at or job.created_at),
        "model": body.model,
        "model_output_name": job.fine_tuned_model,
        "training_file": body.training_file,
        "n_epochs": body.n_epochs,
        "n_checkpoints": 1,
        "n_evals": 0,
        "batch_size": "max" if batch_size == "auto" else batch_size,
        "learning_rate": body.learning_rate,
        "lr_scheduler": {"lr_scheduler_type": "linear", "lr_scheduler_args": {"min_lr_ratio": 1.0}},
        "training_type": {"type": "Lora", "lora_r": RANK, "lora_alpha": 2 * RANK},
        "training_method": {"method": "sft", "train_on_inputs": body.training_method.train_on_inputs},
        "token_count": tokens,
        "total_price": tokens * price_of(account.settings.prices, body.model).train // PICO_A_NANO,
    }


def _truncated(account: MockAccount, job: MockJob) -> Json:
    """Return a fine-tune as it is shown in lists and where it is made and cancelled."""
    more = {"suffix": job.body.suffix, "random_seed": job.seed, "packing": False}
    return _shown(account, job) | more


def _status(job: MockJob) -> str:
    """What is trained and billed is on its way to where it can be asked."""
    if job.status == "running" and job.trained_tokens is not None:
        return "uploading"
    return STATES.get(job.status, job.status)


def _events(job: MockJob) -> list[Json]:
    return [
        {
            "object": "fine-tune-event",
            "created_at": moment(event["created_at"]),
            "level": event["level"],
            "message": event["message"],
            "type": kind,
        }
        for event in job.events
        for begin, kind in EVENTS.items()
        if event["message"].startswith(begin)
    ]


def _body(job: MockJob) -> TuneBody:
    """Return the body of a job, which here is always one of Together's.

    Raises:
        TypeError: It is not.
    """
    if not isinstance(job.body, TuneBody):
        raise TypeError(job.job_id)
    return job.body
