"""OpenAI's objects, as far as they are read, and what they are in the engine's words.

Source: the `openai` SDK's types (3.54), OpenAI's reference and Azure's, as of 2026-11; real payloads differ from them in small
ways, which the comments name.
"""

from __future__ import annotations

import base64
import binascii
import csv
import io
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Generic, TypeVar

from pydantic import AliasPath, BeforeValidator, Field

from adapters.hosted.http.client import Client, HttpReply
from adapters.hosted.http.errors import batch_problem, is_moderation, problem
from adapters.hosted.http.reply import Reply
from adapters.hosted.training import tokens
from engine.ports.chat import MOST_TOKENS, Choice, Completion, FinishReason, RateLimits
from engine.ports.provider import MOST_TRAINED_TOKENS, Job, JobState, Step
from engine.ports.provider_errors import NoReplyError, ProviderError, RejectedError

KEY = "dosimeter"
"""Where in the metadata of jobs and batches our key is."""

STATES = {
    "succeeded": JobState.SUCCEEDED,
    "failed": JobState.FAILED,
    "cancelled": JobState.CANCELLED,
    "canceled": JobState.CANCELLED,
    "running": JobState.RUNNING,
    "pausing": JobState.RUNNING,  # Azure; it trains until it is paused
}
"""Any other state is one of waiting: the SDK's own list lacks states that servers send."""

FINISH_REASONS = {"length": FinishReason.LENGTH, "content_filter": FinishReason.FILTERED}
"""Any other reason is a stop."""

MOST_STEPS = 10**9

HYPERPARAMETERS = ("n_epochs", "batch_size", "learning_rate_multiplier", "learning_rate")
MOST_HYPERPARAMETER = 1e9


def _counted(most: int) -> BeforeValidator:
    """Take a count of tokens that cannot be one for unknown: below 0, above `most`, or no whole number."""
    return BeforeValidator(lambda found: found if isinstance(found, int) and 0 <= found <= most else None)


Tokens = Annotated[int | None, _counted(MOST_TOKENS)]
TrainedTokens = Annotated[int | None, _counted(MOST_TRAINED_TOKENS)]

Said = Annotated[str | None, BeforeValidator(lambda found: found if isinstance(found, str) else None)]

Item = TypeVar("Item", bound=Reply)


class Page(Reply, Generic[Item]):
    """One page of a list. Some servers write an empty one as `null`."""

    data: Annotated[list[Item], BeforeValidator(lambda found: [] if found is None else found)]
    has_more: bool = False


class Filed(Reply):
    """A file."""

    id: str
    filename: str = ""
    purpose: str = ""
    status: str = ""
    created_at: int = 0


class Fault(Reply):
    """Why a job, a batch or a line of one failed. Healthy jobs have one too, without a message."""

    code: str | int | None = None
    message: str | None = None

    @property
    def name(self) -> str:
        """The code, or empty."""
        return "" if self.code is None else str(self.code)


class FineTuningJob(Reply):
    """A fine-tuning job."""

    id: str
    status: str
    model: str = ""
    fine_tuned_model: str | None = None
    trained_tokens: TrainedTokens = None
    created_at: float = 0.0
    error: Fault | None = None
    metadata: dict[str, str] | None = None
    result_files: list[str] | None = None
    hyperparameters: dict[str, object] | None = None
    supervised: dict[str, object] | None = Field(
        default=None, validation_alias=AliasPath("method", "supervised", "hyperparameters")
    )


class Event(Reply):
    """What happened to a job; its data are a step's metrics, or the outcome of the checks after training."""

    id: str = ""
    type: str | None = None
    level: str | None = None
    message: str = ""
    step: int | None = Field(default=None, validation_alias=AliasPath("data", "step"))
    train_loss: float | None = Field(default=None, validation_alias=AliasPath("data", "train_loss"))
    blocked: bool = Field(default=False, validation_alias=AliasPath("data", "blocked"))


class Message(Reply):
    """An answer, or the refusal in its place; servers of open models show thoughts beside it, under one of two names."""

    content: str | None = None
    refusal: str | None = None
    reasoning_content: Said = None
    reasoning: Said = None


class ReplyChoice(Reply):
    """One choice."""

    message: Message
    finish_reason: str | None = None
    index: int | None = None


class ChatReply(Reply):
    """A chat completion."""

    choices: list[ReplyChoice]
    prompt_tokens: Tokens = Field(default=None, validation_alias=AliasPath("usage", "prompt_tokens"))
    completion_tokens: Tokens = Field(default=None, validation_alias=AliasPath("usage", "completion_tokens"))
    cached_tokens: Tokens = Field(
        default=None, validation_alias=AliasPath("usage", "prompt_tokens_details", "cached_tokens")
    )


class Flags(Reply):
    """The moderation of one text."""

    flagged: bool


class Moderation(Reply):
    """The moderation of some texts."""

    results: list[Flags]


class BatchReply(Reply):
    """A batch; its errors are why it was refused."""

    id: str
    status: str
    created_at: int = 0
    output_file_id: str | None = None
    error_file_id: str | None = None
    metadata: dict[str, str] | None = None
    errors: list[Fault] | None = Field(default=None, validation_alias=AliasPath("errors", "data"))

    @property
    def is_over(self) -> bool:
        """Whether it will not change any more."""
        return self.status in {"completed", "failed", "expired", "cancelled"}


class BatchLineResponse(Reply):
    """What one request of a batch got."""

    status_code: int = 200
    body: dict[str, object] | None = None


class BatchLine(Reply):
    """One line of a batch's output or error file."""

    custom_id: str
    response: BatchLineResponse | None = None
    error: Fault | None = None


def job(reply: FineTuningJob, clean: Callable[[str], str]) -> Job:
    """Return a job in the engine's words. One that moderation failed is blocked, not failed."""
    state = STATES.get(reply.status, JobState.WAITING)
    fault = reply.error or Fault()
    reason = clean(fault.message or "")
    if state is JobState.FAILED and is_moderation(fault.name, reason):
        state = JobState.BLOCKED
    return Job(
        job_id=reply.id,
        key=(reply.metadata or {}).get(KEY, ""),
        state=state,
        model=reply.model,
        tuned_model=reply.fine_tuned_model if state is JobState.SUCCEEDED else None,
        trained_tokens=reply.trained_tokens,
        created_at=reply.created_at,
        reason=reason,
        hyperparameters=numbers(reply.supervised) or numbers(reply.hyperparameters),
    )


def blocked_by(events: Sequence[Event]) -> str | None:
    """Return the message of the check that kept a trained model from being used, or None when none did."""
    for event in events:
        is_blocked = event.type == "moderation_checks" and event.blocked
        if is_blocked or (event.level == "error" and is_moderation("", event.message)):
            return event.message
    return None


def completion_of(reply: ChatReply, asked: int, rate_limits: RateLimits) -> Completion:
    """Return a completion in the engine's words.

    Args:
        reply: The reply.
        asked: Estimated tokens of the prompt: what counts where a server does not say what it billed, or says what cannot be.
        rate_limits: What the reply's headers say.
    """
    choices = tuple(_choice(choice) for choice in sorted(reply.choices, key=lambda choice: choice.index or 0))
    prompt, made = reply.prompt_tokens, reply.completion_tokens
    return Completion(
        choices,
        asked if prompt is None else prompt,
        reply.cached_tokens or 0,
        sum(tokens(choice.text) for choice in choices) if made is None else made,
        rate_limits,
    )


def refusal(batch: BatchReply, clean: Callable[[str], str]) -> ProviderError | None:
    """Say why a batch was refused as a whole, or return None when it was not."""
    if batch.status != "failed":
        return None
    if not batch.errors:
        return RejectedError(f"batch {batch.id} was refused, without a reason")
    return batch_problem(batch.errors[0].name, clean(batch.errors[0].message or ""))


def batch_answers(contents: Sequence[bytes], client: Client) -> dict[str, Completion | ProviderError]:
    """Read output and error files: what each request got, by custom id."""
    return dict(_answer(line, client) for content in contents for line in _lines(content, client))


def steps_of_events(events: Sequence[Event]) -> list[Step]:
    """Return the losses that events tell, in the order of the steps."""
    return steps((event.step, event.train_loss) for event in events)


def steps_of_file(content: bytes) -> list[Step]:
    """Return the losses of a result file: CSV with `step` and `train_loss`, which OpenAI sends encoded in base 64."""
    text = content.decode("utf-8-sig", "replace")
    if "," not in text.partition("\n")[0]:
        try:
            text = base64.b64decode(text, validate=False).decode("utf-8-sig", "replace")
        except binascii.Error:
            return []
    return steps(_rows(text))


def steps(found: Iterable[tuple[float | None, float | None]]) -> list[Step]:
    """Return the steps, from 1, that have a loss, in their order; what can be neither step nor loss is left out."""
    pairs = ((step, loss) for step, loss in found if step is not None and loss is not None)
    kept = {int(step): loss for step, loss in pairs if 1 <= step <= MOST_STEPS and math.isfinite(loss)}
    return [Step(step, loss) for step, loss in sorted(kept.items())]


def _rows(text: str) -> Iterator[tuple[float, float]]:
    for row in csv.DictReader(io.StringIO(text)):
        try:
            yield float(row["step"]), float(row["train_loss"])
        except (KeyError, TypeError, ValueError):
            continue  # a step at which only the validation loss was taken has an empty cell


def numbers(found: Mapping[str, object] | None) -> dict[str, float]:
    """Return the hyperparameters that the server has resolved to numbers; what can be none is left out."""
    known = {name: (found or {}).get(name) for name in HYPERPARAMETERS}
    return {
        name: float(value)
        for name, value in known.items()
        if isinstance(value, int | float) and 0 <= value <= MOST_HYPERPARAMETER
    }


def _choice(choice: ReplyChoice) -> Choice:
    said = choice.message
    if said.refusal:
        return Choice(said.refusal, FinishReason.REFUSED)
    reason = FINISH_REASONS.get(choice.finish_reason or "", FinishReason.STOP)
    return Choice(said.content or "", reason, said.reasoning_content or said.reasoning or "")


def _lines(content: bytes, client: Client) -> Iterator[BatchLine]:
    for line in content.splitlines():
        if line.strip():
            yield client.read(BatchLine, HttpReply(line, RateLimits()))


def _answer(line: BatchLine, client: Client) -> tuple[str, Completion | ProviderError]:
    response, fault = line.response, line.error or Fault()
    if response is None:
        return line.custom_id, batch_problem(fault.name, client.clean(fault.message or "the server gave no reason"))
    if not 200 <= response.status_code < 300:  # noqa: PLR2004 - the statuses of success
        return line.custom_id, problem(response.status_code, response.body, {}, client.clean)
    try:
        reply = client.read(ChatReply, HttpReply(json.dumps(response.body).encode(), RateLimits()))
    except NoReplyError as unreadable:
        return line.custom_id, unreadable
    return line.custom_id, completion_of(reply, 0, RateLimits())
