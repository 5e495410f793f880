"""What the engine asks of a provider of hosted models: one Protocol, and the small frozen things that pass through it.

A provider only translates to its API. It sends each request once: what to repeat, when to send, what it may cost and what was
paid before is decided by the engine (`engine.run.accounts`), for all cells alike. Every error is one of `engine.ports.provider_errors`: a
vendor's own exceptions hold the key. Adapters are found by entry point, as those of `engine.ports` are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from engine.domain.conversation import ChatRow
from engine.ports.chat import ChatRequest, Completion
from engine.ports.mock_server import MockServer
from engine.ports.provider_errors import ProviderError


@dataclass(frozen=True, slots=True)
class Access:
    """How an account is reached. The key itself is in no field: whoever connects reads it from the environment.

    Attributes:
        account: The account's name in the spec.
        base_url: Where the API is; None for the provider's own.
        key_env: Name of the environment variable that holds the key.
        timeout: Seconds that one request may take, > 0.
    """

    account: str
    base_url: str | None
    key_env: str
    timeout: float = 120.0


class JobState(StrEnum):
    """Where a fine-tuning job stands, in words that all providers' states map to."""

    WAITING = "waiting"  # being checked, queued or paused
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    BLOCKED = "blocked"  # moderation refused the data or the trained model
    CANCELLED = "cancelled"

    @property
    def is_over(self) -> bool:
        """Whether it will not change any more."""
        return self not in {JobState.WAITING, JobState.RUNNING}


@dataclass(frozen=True, slots=True)
class JobOrder:
    """A fine-tuning job to be made.

    Attributes:
        key: Dosimeter's: the job carries it where its provider has a place, and is found again by it.
        epochs: Passes over it, >= 1.
        batch_size: Examples a step, or None for the provider's choice.
        lr_multiplier, lr: A factor of the provider's own learning rate, or the absolute one; None for its choice.
        suffix: For the tuned model's name: [a-z0-9-], short enough for every provider that has room for one.
    """

    key: str
    model: str
    file_id: str
    epochs: int
    batch_size: int | None
    lr_multiplier: float | None
    seed: int
    suffix: str
    lr: float | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """One step's training loss, as a job's events or result file tell it; `step` is 1-based."""

    step: int
    loss: float


MOST_TRAINED_TOKENS = 10**12


@dataclass(frozen=True, slots=True)
class Job:
    """A fine-tuning job, as the provider shows it.

    Attributes:
        job_id: The provider's name for it.
        key: The key that it was ordered with; empty when it carries none.
        tuned_model: What to ask for when it has succeeded; None before.
        trained_tokens: Tokens billed, epochs included; None until known, or where it is more than a job can train.
        created_at: Seconds since the epoch, UTC.
        reason: Why it failed or was blocked, in the provider's words; untrusted text.
        hyperparameters: What it was trained with, once resolved, by the provider's names, such as `n_epochs`.
    """

    job_id: str
    key: str
    state: JobState
    model: str
    tuned_model: str | None
    trained_tokens: int | None
    created_at: float
    reason: str = ""
    hyperparameters: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Take a number of tokens that cannot be for unknown."""
        if self.trained_tokens is not None and not 0 <= self.trained_tokens <= MOST_TRAINED_TOKENS:
            object.__setattr__(self, "trained_tokens", None)


@dataclass(frozen=True, slots=True)
class BatchState:
    """A batch of requests: its output by custom id once it is over, or why it was refused as a whole."""

    batch_id: str
    is_over: bool
    replies: Mapping[str, Completion | ProviderError] = field(default_factory=dict)
    refusal: ProviderError | None = None


class Session(Protocol):
    """One account, connected. Every call is one request (lists: one a page); it raises any `ProviderError`, and nothing else."""

    async def upload(self, name: str, content: bytes) -> str:
        """Upload a training file under a name, and return its id."""

    async def files(self) -> Mapping[str, str]:
        """Return the id of each training file that is there, by name; of equal names the newest."""

    async def create_job(self, order: JobOrder) -> Job:
        """Start a fine-tuning job. Costs money: after `NoReplyError`, look for its key in `jobs` first."""

    async def jobs(self, since: float) -> Sequence[Job]:
        """Return the jobs created since then, seconds since the epoch, all pages."""

    async def job(self, job_id: str) -> Job:
        """Return one job."""

    async def cancel_job(self, job_id: str) -> Job:
        """Cancel a job; one that is over is returned as it is."""

    async def losses(self, job_id: str) -> Sequence[Step]:
        """Return a finished job's training losses, step by step, as far as the provider keeps them."""

    async def complete(self, request: ChatRequest) -> Completion:
        """Ask a model."""

    async def flagged(self, texts: Sequence[str]) -> Sequence[bool]:
        """Tell which texts the provider's moderation endpoint flags."""

    async def upload_batch(self, key: str, requests: Mapping[str, ChatRequest]) -> str:
        """Upload requests by custom id, and return the file's id. Free."""

    async def submit_batch(self, key: str, file_id: str) -> str:
        """Hand in a batch, answered within a day at the batch price; returns its id. Costs money, as `create_job` does."""

    async def batches(self) -> Mapping[str, str]:
        """Return the id of each batch that was handed in with a key, by key; of equal keys the newest."""

    async def batch(self, batch_id: str) -> BatchState:
        """Return a batch, with its answers once it is over."""

    async def cancel_batch(self, batch_id: str) -> None:
        """Let a batch end before it is done: what was answered by then is billed and kept. One that is over stays as it is."""

    async def close(self) -> None:
        """Close the connections."""


class Provider(Protocol):
    """A vendor's API.

    Attributes:
        revision: Goes into every key that it has a part in.
        base_url: Where the API is for accounts that name no other; None where each has its own.
        key_env: Name of the environment variable that holds the key of accounts that name no other.
    """

    revision: int
    base_url: str | None
    key_env: str

    def connect(self, access: Access) -> Session:
        """Connect to an account; it is `DeniedError` when the environment has no such key."""

    def training_file(self, rows: Sequence[ChatRow]) -> bytes:
        """Return a sample as it wants to be uploaded."""

    def objections(self, rows: Sequence[ChatRow]) -> Sequence[str]:
        """Say what the provider will refuse in a sample: one sentence each, which begins with the row's place or `all rows`."""

    def quota_group(self, model: str) -> str:
        """Return what all models have in common that share one quota with this one; its own name where none does."""

    def tuned_prefix(self, model: str) -> str:
        """Return how the names of models tuned from this one begin in price files, where its own price is found by its name."""

    def prices(self) -> bytes:
        """Return the prices that are known, as a price file (docs/reference/prices.md says its form); empty for none."""

    def rehearsal(self) -> MockServer | None:
        """Return the local mock server that implements this API, or None where there is none: then nothing is rehearsed."""
