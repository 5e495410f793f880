"""What can be told to the fine-tuner and the generators of this machine."""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self

from pydantic import Field

from engine.domain.sweep import Length
from engine.ports import Settings

LORA_ONLY = ("rank", "alpha", "dropout", "targets", "backend")
"""The settings that have no effect when all weights are tuned."""


class SftSettings(Settings):
    """How `local/sft` tunes: the loss is on the marked assistant turns only."""

    backend: Literal["packed", "trl"] = Field(
        default="packed",
        description="`packed` trains LoRA adapters many at a time; `trl` one at a time, with TRL's own trainer. Equal"
        " within a stated tolerance; full fine-tuning always uses TRL.",
    )
    method: Literal["lora", "full"] = Field(default="lora", description="LoRA adapters, or all weights.")
    rank: int = Field(default=8, ge=1, le=1024, description="LoRA rank.", json_schema_extra={"also": ["r", "lora_r"]})
    alpha: int | None = Field(
        default=None,
        ge=1,
        description="LoRA alpha; twice the rank when omitted.",
        json_schema_extra={"also": ["lora_alpha"]},
    )
    dropout: float = Field(
        default=0.0, ge=0, lt=1, description="LoRA dropout probability.", json_schema_extra={"also": ["lora_dropout"]}
    )
    targets: Annotated[tuple[str, ...], Field(strict=False)] = Field(
        default=("all-linear",),
        description="Module names that get LoRA adapters; `all-linear` for all of them.",
        json_schema_extra={"also": ["target_modules"]},
    )
    lr: float = Field(
        gt=0,
        lt=1,
        description="Peak learning rate, absolute, per optimizer step.",
        json_schema_extra={"also": ["learning_rate"]},
    )
    batch_size: int = Field(
        default=10,
        ge=1,
        description="Examples per forward pass.",
        json_schema_extra={"also": ["per_device_train_batch_size", "train_batch_size"]},
    )
    grad_accum: int = Field(
        default=1,
        ge=1,
        description="Forward passes per optimizer step.",
        json_schema_extra={"also": ["gradient_accumulation_steps"]},
    )
    schedule: Literal["constant", "linear", "cosine"] = Field(
        default="constant",
        description="Learning-rate schedule after the warm-up.",
        json_schema_extra={"also": ["lr_scheduler_type", "scheduler"]},
    )
    warmup_steps: int = Field(default=0, ge=0, description="Linear warm-up, in optimizer steps (absolute).")
    weight_decay: float = Field(default=0.0, ge=0, description="AdamW weight decay.")
    max_grad_norm: float = Field(default=1.0, gt=0, description="Gradients are clipped to this 2-norm.")
    max_length: int = Field(
        default=512,
        ge=8,
        description="Longest training row, in tokens; longer rows are cut.",
        json_schema_extra={"also": ["max_seq_length"]},
    )
    dtype: Literal["float32", "bfloat16"] = Field(default="float32", description="Weights' type in training.")

    def effective(self) -> Self:
        """Return the settings without what has no effect, so that equal work has one key."""
        fields = type(self).model_fields
        if self.method == "full":
            return self.model_copy(update={name: fields[name].default for name in LORA_ONLY})
        return self.model_copy(update={"alpha": None}) if self.alpha == 2 * self.rank else self

    @property
    def pack_blocked(self) -> str:
        """The setting for which TRL trains it, one run at a time; empty when it can train in a pack."""
        return "method" if self.method == "full" else "backend" if self.backend == "trl" else ""

    @property
    def base_dtype(self) -> str:
        """Type of the weights that the model is read with."""
        return self.dtype

    def steps_per_epoch(self, items: int) -> int:
        """Return the optimizer steps of one epoch over `items` rows; the last batch and the last group may be ragged."""
        return math.ceil(math.ceil(items / self.batch_size) / self.grad_accum)

    def total_steps(self, length: Length, items: int) -> int:
        """Return the optimizer steps of a run of some length over `items` rows."""
        return length.in_steps(self.steps_per_epoch(items))


class DecodeSettings(Settings):
    """How `local/transformers` and `local/vllm` answer."""

    dtype: Literal["float32", "bfloat16"] = Field(default="float32", description="Weights' type when generating.")
