"""What the engine asks of a provider of hosted models: one Protocol, and the small frozen things that pass through it.

A provider only translates to its API. It sends each request once: what to repeat, when to send, what it may cost and what was
paid before is decided by its host (`engine.run`), for all cells alike. Every error is one of `engine.ports.provider_errors`: a
vendor's own exceptions hold the key. Adapters are found by entry point, as those of `engine.ports` are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from engine.domain.conversation import ChatRow, Turn
from engine.domain.cost import Usage
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


@dataclass(frozen=True, slots=True)
class RateLimit:
    """One limit, as a reply's headers tell it; None where they do not.

    Attributes:
        limit: How much a minute.
        left: How much of it is left.
        seconds: When all of it will be there again, from now.
    """

    limit: int | None = None
    left: int | None = None
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class RateLimits:
    """What a reply's headers tell of an account's limits."""

    requests: RateLimit = RateLimit()
    tokens: RateLimit = RateLimit()


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One chat completion.

    Attributes:
        model: A base model's name, or a tuned one's.
        turns: The chat so far.
        max_tokens: Longest answer, in tokens, >= 1.
        temperature: 0 asks for the likeliest answer.
        top_p: Nucleus sampling mass, (0, 1].
        samples: Answers wanted, >= 1.
        seed: Seed of the sampling, where the provider has one; None for none.
        schema: JSON schema that the answer must follow, where the provider can; None for free text.
    """

    model: str
    turns: tuple[Turn, ...]
    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    samples: int = 1
    seed: int | None = None
    schema: Mapping[str, object] | None = None

    @property
    def characters(self) -> int:
        """Characters of all turns: what estimates of its tokens are made from."""
        return sum(len(turn.text) for turn in self.turns)


class FinishReason(StrEnum):
    """Why a hosted answer ended."""

    STOP = "stop"
    LENGTH = "length"
    FILTERED = "filtered"  # the provider's content filter withheld it
    REFUSED = "refused"  # the provider's own refusal field was set instead of an answer


@dataclass(frozen=True, slots=True)
class Choice:
    """One answer: its text, empty where there is none, and why it ended."""

    text: str
    finish_reason: FinishReason


@dataclass(frozen=True, slots=True)
class Completion:
    """The reply to a `ChatRequest`.

    Attributes:
        choices: `samples` of them.
        prompt_tokens: Tokens read, as billed; cached ones included.
        cached_tokens: Of those, how many were billed as cached.
        generated_tokens: Tokens made, of all choices, as billed.
        rate_limits: What the headers said.
        is_booked: Whether an attempt that has ended has it in its books: it was bought before, and is used again.
        possibly_billed: What earlier sends of the request may be billed for whose reply never came: its `possibly_billed_…_tokens`.
    """

    choices: tuple[Choice, ...]
    prompt_tokens: int
    cached_tokens: int
    generated_tokens: int
    rate_limits: RateLimits = RateLimits()
    is_booked: bool = False
    possibly_billed: Usage = field(default_factory=Usage)

    @property
    def usage(self) -> Usage:
        """What it adds to the books."""
        if self.is_booked:
            return Usage()
        read, cached, made = self.prompt_tokens, self.cached_tokens, self.generated_tokens
        return self.possibly_billed + Usage(prompt_tokens=read, cached_tokens=cached, generated_tokens=made)


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
        key: Ours: the job carries it where its provider has a place, and is found again by it.
        model: The base model.
        file_id: The training file.
        epochs: Passes over it, >= 1.
        batch_size: Examples a step, or None for the provider's choice.
        lr_multiplier, lr: A factor of the provider's own learning rate, or the absolute one; None for its choice.
        seed: Seed of the training.
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


@dataclass(frozen=True, slots=True)
class Job:
    """A fine-tuning job, as the provider shows it.

    Attributes:
        job_id: The provider's name for it.
        key: Our key, wherever it carries one; empty when it carries none.
        state: Where it stands.
        model: The base model.
        tuned_model: What to ask for when it has succeeded; None before.
        trained_tokens: Tokens billed, epochs included; None until known.
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
        ...

    async def files(self) -> Mapping[str, str]:
        """Return the id of each training file that is there, by name; of equal names the newest."""
        ...

    async def create_job(self, order: JobOrder) -> Job:
        """Start a fine-tuning job. Costs money: after `NoReplyError`, look for its key in `jobs` first."""
        ...

    async def jobs(self, since: float) -> Sequence[Job]:
        """Return the jobs created since then, seconds since the epoch, all pages."""
        ...

    async def job(self, job_id: str) -> Job:
        """Return one job."""
        ...

    async def cancel_job(self, job_id: str) -> Job:
        """Cancel a job; one that is over is returned as it is."""
        ...

    async def losses(self, job_id: str) -> Sequence[Step]:
        """Return a finished job's training losses, step by step, as far as the provider keeps them."""
        ...

    async def complete(self, request: ChatRequest) -> Completion:
        """Ask a model."""
        ...

    async def flagged(self, texts: Sequence[str]) -> Sequence[bool]:
        """Tell which texts the provider's moderation endpoint flags."""
        ...

    async def upload_batch(self, key: str, requests: Mapping[str, ChatRequest]) -> str:
        """Upload requests by custom id, and return the file's id. Free."""
        ...

    async def submit_batch(self, key: str, file_id: str) -> str:
        """Hand in a batch, answered within a day at the batch price; returns its id. Costs money, as `create_job` does."""
        ...

    async def batches(self) -> Mapping[str, str]:
        """Return the id of each batch that carries one of our keys, by key; of equal keys the newest."""
        ...

    async def batch(self, batch_id: str) -> BatchState:
        """Return a batch, with its answers once it is over."""
        ...

    async def cancel_batch(self, batch_id: str) -> None:
        """Let a batch end before it is done: what was answered by then is billed and kept. One that is over stays as it is."""
        ...

    async def close(self) -> None:
        """Close the connections."""
        ...


@dataclass(frozen=True, slots=True)
class TuningRequest:
    """A sample to be trained on at a provider.

    Attributes:
        key: The tune stage's key: what is paid for under it is never paid for again.
        model: The base model's name there.
        rows: The sample, in its sampled order.
        epochs, batch_size, lr_multiplier, seed, lr: As in `JobOrder`.
    """

    key: str
    model: str
    rows: Sequence[ChatRow]
    epochs: int
    batch_size: int | None
    lr_multiplier: float | None
    seed: int
    lr: float | None = None


@dataclass(frozen=True, slots=True)
class HostedTuning:
    """A job that has succeeded, its training losses, and what it adds to the books."""

    job: Job
    steps: Sequence[Step]
    usage: Usage


class Account(Protocol):
    """An account, as adapters see it: within its quota, repeated where that is safe, and paid for once."""

    def complete_all(
        self, requests: Mapping[str, Sequence[ChatRequest]], *, urgent: bool
    ) -> Iterator[tuple[str, Sequence[Completion | ProviderError]]]:
        """Send all requests, and yield (stage key, replies in order) of each stage as soon as it is done.

        Args:
            requests: Requests by stage key.
            urgent: Whether they go before others of this account: judges do, because they finish cells.
        """
        ...

    def begun(self, stage_key: str) -> bool:
        """Tell whether replies of a stage that were bought in an earlier run wait to be used."""
        ...

    def fine_tune(self, requests: Sequence[TuningRequest]) -> Iterator[tuple[str, HostedTuning | ProviderError]]:
        """Run jobs, all at once within the quota, and yield (key, what came of it) of each as it ends."""
        ...


class Provider(Protocol):
    """A vendor's API. `base_url` is where its API is for accounts that name no other; None where each has its own."""

    revision: int
    base_url: str | None

    def connect(self, access: Access) -> Session:
        """Connect to an account; it is `DeniedError` when the environment has no such key."""
        ...

    def training_file(self, rows: Sequence[ChatRow]) -> bytes:
        """Return a sample as it wants to be uploaded."""
        ...

    def objections(self, rows: Sequence[ChatRow]) -> Sequence[str]:
        """Say what the provider will refuse in a sample: one sentence each, which begins with the row's place or `all rows`."""
        ...
