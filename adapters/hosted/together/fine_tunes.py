"""Fine-tunes at Together AI: how one is ordered, and what its replies say in the engine's words.

Source: the `together` SDK (3.1.1) and Together's reference, as of 2026-11.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

from adapters.hosted.http.reply import Reply
from adapters.hosted.openai.replies import TrainedTokens, numbers
from engine.ports.provider import Job, JobOrder, JobState
from engine.ports.provider_errors import RejectedError

KEY = re.compile(r"[a-z]+-[0-9a-f]{32}")
"""Our keys. Jobs have no metadata, and their suffix at most 40 characters: the key, of 37, is the suffix, and so is in the name
of what is made."""

STATES = {
    "running": JobState.RUNNING,
    "compressing": JobState.RUNNING,
    "uploading": JobState.RUNNING,
    "cancel_requested": JobState.RUNNING,
    "completed": JobState.SUCCEEDED,
    "error": JobState.FAILED,
    "user_error": JobState.FAILED,
    "cancelled": JobState.CANCELLED,
}
"""Any other state is one of waiting."""

RANK, ALPHA, DROPOUT, TARGETS = 8, 16, 0.0, "all-linear"
WEIGHT_DECAY, MAX_GRAD_NORM = 0.0, 1.0
"""What nobody may choose is as `local/sft` has it when nobody does: then a job here is trained as one at home."""


def epoch(moment: datetime | None) -> float:
    """Return a moment in seconds since the epoch; one without a zone is of UTC, and none is the epoch."""
    if moment is None:
        return 0.0
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


class FineTune(Reply):
    """A fine-tune. Some replies lack the suffix, and have it in the name of the model."""

    id: str
    status: str
    created_at: datetime | None = None
    model: str | None = None
    suffix: str | None = None
    model_output_name: str | None = None
    token_count: TrainedTokens = None
    n_epochs: float | None = None
    batch_size: float | str | None = None
    learning_rate: float | None = None

    def job(self) -> Job:
        """Return it in the engine's words; why it failed is in its events."""
        state = STATES.get(self.status, JobState.WAITING)
        key = KEY.search(self.suffix or self.model_output_name or "")
        return Job(
            job_id=self.id,
            key=key[0] if key else "",
            state=state,
            model=self.model or "",
            tuned_model=self.model_output_name if state is JobState.SUCCEEDED else None,
            trained_tokens=self.token_count or None,  # 0 until it is known
            created_at=epoch(self.created_at),
            hyperparameters=numbers(dict(self)),
        )


class Metrics(Reply):
    """What was measured, step by step; of training and of validation in rows of their own."""

    metrics: list[dict[str, float | None]] | None = None


def ordered(order: JobOrder) -> dict[str, object]:
    """Return the body of a job. The learning rate is constant, as at home, and the loss is on the answers.

    Raises:
        RejectedError: Its key would not find it again, or it has a multiplier.
    """
    if not KEY.fullmatch(order.key):
        raise RejectedError(f"`{order.key}` is no key that a job at Together can be found by")
    if order.lr_multiplier is not None:
        raise RejectedError("Together takes an absolute learning rate, and no multiplier")
    lora = {"lora_r": RANK, "lora_alpha": ALPHA, "lora_dropout": DROPOUT, "lora_trainable_modules": TARGETS}
    chosen = {"batch_size": order.batch_size, "learning_rate": order.lr}
    return {
        "model": order.model,
        "training_file": order.file_id,
        "suffix": order.key,
        "n_epochs": order.epochs,
        "random_seed": order.seed,
        "lr_scheduler": {"lr_scheduler_type": "linear", "lr_scheduler_args": {"min_lr_ratio": 1.0}},
        "warmup_ratio": 0.0,
        "weight_decay": WEIGHT_DECAY,
        "max_grad_norm": MAX_GRAD_NORM,
        "training_type": {"type": "Lora", **lora},
        "training_method": {"method": "sft", "train_on_inputs": False},
    } | {name: value for name, value in chosen.items() if value is not None}
