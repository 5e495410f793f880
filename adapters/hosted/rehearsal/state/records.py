"""What an account at the mock server holds: files, jobs, batches and deployments, and how the API shows them."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from adapters.hosted.rehearsal.api import Json

ACTIVE_JOB = frozenset({"validating_files", "queued", "running", "paused"})
ACTIVE_BATCH = frozenset({"validating", "in_progress", "finalizing"})
GREATEST_SEED = 2**31

Metadata = Annotated[
    dict[Annotated[str, StringConstraints(max_length=64)], Annotated[str, StringConstraints(max_length=512)]],
    Field(max_length=16),
]


@dataclass(frozen=True, slots=True)
class StoredFile:
    """One file.

    Attributes:
        file_id: Its id.
        name: What the client called it.
        purpose: What for.
        content: Its bytes.
        created_at: Seconds since the epoch, UTC.
        expires_at: When it is gone, or None for never.
    """

    file_id: str
    name: str
    purpose: str
    content: bytes
    created_at: float
    expires_at: float | None = None

    @property
    def is_there(self) -> bool:
        """Whether it has not expired."""
        return self.expires_at is None or time.time() < self.expires_at

    def shown(self) -> Json:
        """Return it as the API shows it."""
        return {
            "id": self.file_id,
            "object": "file",
            "bytes": len(self.content),
            "created_at": int(self.created_at),
            "filename": self.name,
            "purpose": self.purpose,
            "status": "processed",
        }


class Hyperparameters(BaseModel):
    """What a job is trained with; `auto` until the server has chosen."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    n_epochs: Literal["auto"] | Annotated[int, Field(ge=1, le=50)] = "auto"
    batch_size: Literal["auto"] | Annotated[int, Field(ge=1, le=256)] = "auto"
    learning_rate_multiplier: Literal["auto"] | Annotated[float, Field(gt=0)] = "auto"

    def resolved(self) -> tuple[int, int, float]:
        """Return the epochs, the batch size and the multiplier, with every `auto` chosen."""
        return (
            3 if self.n_epochs == "auto" else self.n_epochs,
            10 if self.batch_size == "auto" else self.batch_size,
            1.0 if self.learning_rate_multiplier == "auto" else self.learning_rate_multiplier,
        )


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
class MockJob:
    """One job.

    Attributes:
        job_id: Its id.
        call: The request that made it, for faults.
        body: What was asked for.
        created_at: Seconds since the epoch, UTC.
        seed: Of the training.
        hyperparameters: Those asked for, and resolved once it runs.
        status: Where it stands, in the API's words.
        before_pause: Where it stood before it was paused.
        fine_tuned_model: What it made.
        finished_at: Seconds since the epoch, UTC.
        trained_tokens: Tokens billed.
        error: Why it failed.
        result_files: The step metrics, once it has succeeded.
        events: Oldest first.
        work: What lets it pass.
        may_go: Whether it is not paused.
    """

    job_id: Annotated[str, StringConstraints(pattern=r"^[\w-]+$")]  # it names a folder
    call: str
    body: JobBody
    created_at: float
    seed: int
    hyperparameters: Hyperparameters
    status: str = "validating_files"
    before_pause: str = ""
    fine_tuned_model: str | None = None
    finished_at: float | None = None
    trained_tokens: int | None = None
    error: Json | None = None
    result_files: list[str] = field(default_factory=list)
    events: list[Json] = field(default_factory=list)
    work: asyncio.Task[None] | None = None
    may_go: asyncio.Event = field(default_factory=asyncio.Event)

    def shown(self) -> Json:
        """Return it as the API shows it."""
        hyperparameters = self.hyperparameters.model_dump()
        return {
            "object": "fine_tuning.job",
            "id": self.job_id,
            "model": self.body.model,
            "created_at": int(self.created_at),
            "finished_at": None if self.finished_at is None else int(self.finished_at),
            "fine_tuned_model": self.fine_tuned_model,
            "result_files": list(self.result_files),
            "status": self.status,
            "training_file": self.body.training_file,
            "hyperparameters": hyperparameters,
            "trained_tokens": self.trained_tokens,
            "error": self.error or {},
            "user_provided_suffix": self.body.suffix,
            "seed": self.seed,
            "metadata": self.body.metadata,
            "method": {"type": "supervised", "supervised": {"hyperparameters": hyperparameters}},
        }

    def end(self, status: str) -> None:
        """End it."""
        self.status, self.finished_at = status, time.time()


class BatchBody(BaseModel):
    """The body that creates a batch."""

    model_config = ConfigDict(extra="ignore")

    input_file_id: str
    endpoint: Literal["/v1/chat/completions"]
    completion_window: Literal["24h"]
    metadata: Metadata | None = None


@dataclass(slots=True)
class MockBatch:
    """One batch.

    Attributes:
        batch_id: Its id.
        body: What was asked for.
        created_at: Seconds since the epoch, UTC.
        status: Where it stands.
        model: The model that it asks.
        total: Requests in it.
        answered: Lines of the output file.
        refused: Lines of the error file.
        output_file_id: The answers, once it is over.
        error_file_id: What failed, once it is over.
        errors: Why it could not be begun.
        work: What lets it pass.
    """

    batch_id: str
    body: BatchBody
    created_at: float
    status: str = "validating"
    model: str | None = None
    total: int = 0
    answered: list[Json] = field(default_factory=list)
    refused: list[Json] = field(default_factory=list)
    output_file_id: str | None = None
    error_file_id: str | None = None
    errors: list[Json] = field(default_factory=list)
    work: asyncio.Task[None] | None = None

    def shown(self) -> Json:
        """Return it as the API shows it."""
        return {
            "id": self.batch_id,
            "object": "batch",
            "endpoint": self.body.endpoint,
            "model": self.model,
            "errors": {"object": "list", "data": self.errors} if self.errors else None,
            "input_file_id": self.body.input_file_id,
            "completion_window": self.body.completion_window,
            "status": self.status,
            "output_file_id": self.output_file_id,
            "error_file_id": self.error_file_id,
            "created_at": int(self.created_at),
            "request_counts": {"total": self.total, "completed": len(self.answered), "failed": len(self.refused)},
            "metadata": self.body.metadata,
        }


@dataclass(frozen=True, slots=True)
class Deployment:
    """A model under a name of its own.

    Attributes:
        name: What requests call it.
        model: What answers.
        ready_at: Seconds since the epoch, UTC, from which it does.
    """

    name: str
    model: str
    ready_at: float

    @property
    def is_ready(self) -> bool:
        """Whether it answers."""
        return time.time() >= self.ready_at

    def shown(self) -> Json:
        """Return it as the API shows it."""
        state = "Succeeded" if self.is_ready else "Creating"
        model = {"format": "OpenAI", "name": self.model, "version": "1"}
        return {"name": self.name, "properties": {"model": model, "provisioningState": state}}
