"""A fine-tuning job in the mock server, from validation to success or failure.

It has OpenAI's states and events, simulated waits and faults, and real training of the stand-in.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from adapters.hosted.rehearsal.backend.parts import settings_of
from adapters.hosted.rehearsal.backend.training_file import FEWEST, BadFileError, read
from adapters.hosted.rehearsal.endpoints import files
from adapters.hosted.rehearsal.settings import TOGETHER_ACCOUNT, FaultKind
from adapters.hosted.rehearsal.state.account import MockAccount
from engine.domain.conversation import ChatRow
from engine.domain.results import TrainingStep
from engine.domain.sweep import Length
from engine.ports import Checkpoint, TrainingRun, Tuned

if TYPE_CHECKING:
    from adapters.hosted.rehearsal.state.records import MockJob

FILE_BLOCKED = (
    "This training file was blocked by our moderation system: too many examples violate OpenAI's usage policies."
)
MODEL_BLOCKED = "The fine-tuned model did not pass our safety evaluations: it violates OpenAI's usage policies."


class _JobError(Exception):
    """Why a job fails, in the API's words."""

    def __init__(self, message: str, code: str, param: str | None = None) -> None:
        super().__init__(message)
        self.shown = {"code": code, "message": message, "param": param}


async def run(account: MockAccount, job: MockJob) -> None:
    """Let a job pass, to its end."""
    try:
        rows = await _validated(account, job)
        await _enter(account, job, "queued", "Files validated, moving job to queued state")
        await account.pause(account.settings.durations.queue)
        async with account.slot(job.body.model):
            await _trained(account, job, rows)
    except _JobError as error:
        job.error = error.shown
        job.end("failed")
        account.tell(job, f"The job failed: {error}", "error")
    except Exception:
        job.error = _JobError("The job failed due to an internal error.", "server_error").shown
        job.end("failed")
        raise  # a bug of this server, for the log


def metrics_file(steps: Sequence[TrainingStep]) -> bytes:
    """Return the losses as CSV.

    >>> metrics_file([TrainingStep(step=1, epoch=0.5, loss=2.25, lr=0.001)]).split()
    [b'step,train_loss', b'1,2.25']
    """
    return "".join(["step,train_loss\n", *(f"{step.step},{step.loss}\n" for step in steps)]).encode()


async def _enter(account: MockAccount, job: MockJob, status: str, message: str) -> None:
    """Move a job on, as soon as it is not paused."""
    await job.may_go.wait()
    job.status = status
    account.tell(job, message)


async def _validated(account: MockAccount, job: MockJob) -> tuple[ChatRow, ...]:
    """Return the examples, once the file has been looked through.

    Raises:
        _JobError: It cannot be trained on, or may not be.
    """
    account.tell(job, f"Validating training file: {job.body.training_file}")
    await account.pause(account.settings.durations.validate_files)
    file = files.usable(account, job.body.training_file)
    if file is None:
        raise _JobError(f"File {job.body.training_file} does not exist.", "invalid_training_file", "training_file")
    if account.faults.strikes(FaultKind.BAD_FILE, job.call):
        raise _JobError(FILE_BLOCKED, "invalid_training_file", "training_file")
    try:
        return await asyncio.to_thread(read, file.content, 1 if account.is_together else FEWEST)
    except BadFileError as error:
        raise _JobError(str(error), error.code, "training_file") from error


async def _trained(account: MockAccount, job: MockJob, rows: tuple[ChatRow, ...]) -> None:
    """Train, check the model, and let it be asked.

    Raises:
        _JobError: It failed, or the model may not be used.
    """
    epochs, batch_size, multiplier = job.hyperparameters.resolved()
    values = {"n_epochs": epochs, "batch_size": batch_size, "learning_rate_multiplier": multiplier}
    await _enter(account, job, "running", "Fine-tuning job started")
    job.hyperparameters = job.hyperparameters.model_copy(update=values)
    backend, folder = account.backend, account.weights / job.job_id
    checkpoint = Checkpoint(job.job_id, Length(epochs), folder / job.job_id)
    checkpoint.folder.mkdir(parents=True)
    settings = backend.training(batch_size, multiplier)
    run = TrainingRun(backend.model(), rows, settings, job.seed, (checkpoint,), folder / "state")
    lasts = account.pause(account.settings.durations.run)
    tuned, _ = await asyncio.gather(_tuned(account, job, run), lasts)
    tokens = await _tokens(account, rows)  # not beside it: two threads must not load the libraries at the same time
    await job.may_go.wait()
    if job.trained_tokens is None:  # else it was billed before this server was started again
        job.trained_tokens = tokens * epochs
        account.audit.bill(job.body.model, trained=job.trained_tokens)
    _report(account, job, tuned.steps)
    account.tell(job, "Evaluating model against our usage policies")
    await account.pause(account.settings.durations.check)
    await job.may_go.wait()
    if account.faults.strikes(FaultKind.BAD_MODEL, job.call):
        account.tell(job, "Moderation checks failed", "error", {"blocked": True, "thresholds": {}})
        job.events[-1]["type"] = "moderation_checks"
        raise _JobError(MODEL_BLOCKED, "model_blocked")
    _publish(account, job, checkpoint.folder, tuned.steps)


async def _tokens(account: MockAccount, rows: Sequence[ChatRow]) -> int:
    source = account.backend.source
    return sum(await asyncio.to_thread(source.row_lengths, settings_of(source)(), rows))


async def _tuned(account: MockAccount, job: MockJob, run: TrainingRun) -> Tuned:
    """Really train.

    Raises:
        _JobError: It failed.
    """
    if account.faults.strikes(FaultKind.BAD_JOB, job.call):
        raise _JobError("The job failed due to an internal error. Please try again.", "server_error")
    try:
        return await account.trainer.train(run)
    except RuntimeError as error:
        raise _JobError(f"The job failed due to an internal error: {error}", "server_error") from error


def _name(account: MockAccount, job: MockJob) -> str:
    tail = account.new_id("")[:8]
    suffix = job.body.suffix or ""
    if account.is_together:
        return f"{TOGETHER_ACCOUNT}{job.body.model}:{suffix}:{tail.lower()}"
    if account.is_azure:
        return f"{job.body.model}.ft-{tail.lower()}" + (f"-{suffix}" if suffix else "")
    return f"ft:{job.body.model}:rehearsal:{suffix}:{tail}"


def _report(account: MockAccount, job: MockJob, steps: Sequence[TrainingStep]) -> None:
    """Tell of every step."""
    for step in steps:
        data = {"step": step.step, "train_loss": step.loss, "total_steps": len(steps)}
        account.tell(job, f"Step {step.step}/{len(steps)}: training loss={step.loss:.2f}", data=data)


def _publish(account: MockAccount, job: MockJob, weights: Path, steps: Sequence[TrainingStep]) -> None:
    """Let the model be asked."""
    name = _name(account, job)
    account.tuned[name] = str(weights)
    written = files.keep(account, "step_metrics.csv", "fine-tune-results", metrics_file(steps))
    job.result_files = [written.file_id]
    job.fine_tuned_model = name
    account.tell(job, f"New fine-tuned model created: {name}")
    account.tell(job, "Usage policy evaluations completed, model is now enabled for sampling")
    account.tell(job, "The job has successfully completed")
    job.end("succeeded")
