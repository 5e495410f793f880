"""What can be told to the fine-tuner and the generators of this machine."""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from adapters import thoughts
from engine.domain.sweep import Length
from engine.ports import OUTSIDE, Settings

LORA_ONLY = ("rank", "alpha", "dropout", "targets", "backend")
"""The settings that have no effect when all weights are tuned."""


class SftSettings(Settings):
    """How `local/sft` tunes: the loss is on the marked assistant turns only."""

    backend: Literal["packed", "trl"] = Field(
        default="packed",
        description="`packed` trains LoRA adapters many at a time; `trl` one at a time, with TRL's own trainer. Equal"
        " within a stated tolerance; full fine-tuning always uses TRL.",
    )
    method: Literal["lora", "full"] = Field(
        default="lora",
        description="LoRA adapters, or all weights (of a model that reads images, those of its language model).",
    )
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
        description="Module names that get LoRA adapters; `all-linear` for all of them. Those of a vision tower get none.",
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
        description="Examples of a batch. How many of them go through the model at once, memory decides: the result is the"
        " same up to rounding, and to the masks of dropout.",
        json_schema_extra={"also": ["per_device_train_batch_size", "train_batch_size"]},
    )
    grad_accum: int = Field(
        default=1,
        ge=1,
        description="Batches per optimizer step.",
        json_schema_extra={"also": ["gradient_accumulation_steps"]},
    )
    drop_last: bool = Field(
        default=False,
        description="Leave out the last batch of an epoch where it is short, and not the only one.",
        json_schema_extra={"also": ["dataloader_drop_last"]},
    )
    schedule: Literal["constant", "linear", "cosine", "step"] = Field(
        default="constant",
        description="Learning-rate schedule after the warm-up; `step` multiplies by `gamma` after each epoch.",
        json_schema_extra={"also": ["lr_scheduler_type", "scheduler"]},
    )
    gamma: float = Field(
        default=0.85, gt=0, le=1, description="What `schedule: step` multiplies the rate by; the paper's is 0.85."
    )
    warmup_steps: int = Field(default=0, ge=0, description="Linear warm-up, in optimizer steps (absolute).")
    warmup_ratio: float = Field(
        default=0.0, ge=0, lt=1, description="Linear warm-up, as a share of all steps; instead of `warmup_steps`."
    )
    optimizer: Literal["adamw", "adamw_8bit"] = Field(
        default="adamw",
        description="`adamw_8bit` keeps its moments in 8 bits (bitsandbytes): a quarter of the memory, for all weights of a large"
        " model. Not in packs.",
        json_schema_extra={"also": ["optim"]},
    )
    weight_decay: float = Field(default=0.0, ge=0, description="AdamW weight decay.")
    beta1: float = Field(
        default=0.9, ge=0, lt=1, description="AdamW's beta 1.", json_schema_extra={"also": ["adam_beta1"]}
    )
    beta2: float = Field(
        default=0.999, ge=0, lt=1, description="AdamW's beta 2.", json_schema_extra={"also": ["adam_beta2"]}
    )
    epsilon: float = Field(
        default=1e-8, gt=0, description="AdamW's epsilon.", json_schema_extra={"also": ["adam_epsilon", "eps"]}
    )
    max_grad_norm: float = Field(default=1.0, gt=0, description="Gradients are clipped to this 2-norm.")
    max_length: int = Field(
        default=512,
        ge=8,
        description="Longest training row, in tokens; longer rows are cut.",
        json_schema_extra={"also": ["max_seq_length"]},
    )
    precision: Literal["float32", "mixed", "bfloat16"] = Field(
        default="float32",
        description="`mixed` computes in bfloat16, and what is trained is float32. `bfloat16` trains weights in bfloat16,"
        " which loses small updates. LoRA matrices are always float32, so that for LoRA both are one.",
        json_schema_extra={"also": ["dtype", "bf16"]},
    )
    gradient_checkpointing: Annotated[Literal["auto", "on", "off"], OUTSIDE] = Field(
        default="auto",
        description="Compute activations again instead of keeping them: slower, in less memory. `auto`: where memory asks for"
        " it.",
    )

    def effective(self) -> Self:
        """Return the settings without what has no effect, so that equal work has one key."""
        fields = type(self).model_fields
        idle: dict[str, object] = {}
        if self.method == "full":
            idle = {name: fields[name].default for name in LORA_ONLY}
        else:
            idle = {"alpha": None} if self.alpha == 2 * self.rank else {}
            idle |= {"precision": "mixed"} if self.precision == "bfloat16" else {}
        if self.schedule != "step":
            idle["gamma"] = fields["gamma"].default
        return self.model_copy(update=idle) if idle else self

    @model_validator(mode="after")
    def _one_warmup(self) -> Self:
        if self.warmup_steps and self.warmup_ratio:
            raise ValueError("`warmup_steps` and `warmup_ratio` both say how long the warm-up is: give one of them")
        return self

    @model_validator(mode="after")
    def _draws_masks_once(self) -> Self:
        if self.gradient_checkpointing == "on" and not self.can_checkpoint:
            raise ValueError(
                "`gradient_checkpointing: on` with `dropout` needs `backend: trl`: a pack would draw other masks the second time"
            )
        return self

    @property
    def base_dtype(self) -> Literal["float32", "bfloat16"]:
        """Type of the weights that the model is read with: what is tuned in full under `mixed` is read in float32."""
        return "float32" if self.precision == "float32" or self.is_autocast else "bfloat16"

    @property
    def is_autocast(self) -> bool:
        """Whether float32 weights are computed with in bfloat16."""
        return self.method == "full" and self.precision == "mixed"

    @property
    def is_stepwise(self) -> bool:
        """Whether a step's learning rate is the same however long the run is."""
        return self.schedule in {"constant", "step"} and not self.warmup_ratio

    def warmup(self, steps: int) -> int:
        """Return the steps of warm-up of a run of so many steps, as transformers' Trainer rounds them."""
        return self.warmup_steps or math.ceil(steps * self.warmup_ratio)

    @property
    def pack_blocked(self) -> str:
        """The setting for which TRL trains it, one run at a time; empty when it can train in a pack."""
        if self.method == "full":
            return "method"
        if self.backend == "trl":
            return "backend"
        return "optimizer" if self.optimizer != "adamw" else ""

    @property
    def can_checkpoint(self) -> bool:
        """Whether its backend can compute activations again: a pack draws dropout itself, and would draw other masks."""
        is_alone = self.method == "full" or self.backend == "trl" or self.optimizer != "adamw"
        return self.gradient_checkpointing != "off" and (is_alone or not self.dropout)

    def is_sharded(self, devices: float) -> bool:
        """Tell whether a run on so many GPUs has a process for each, which shard the model among them.

        An optimizer of bitsandbytes cannot be sharded: there one process has the model's layers spread over all GPUs.
        """
        return self.method == "full" and self.optimizer == "adamw" and devices > 1

    def steps_per_epoch(self, items: int) -> int:
        """Return the optimizer steps of one epoch over `items` rows; the last batch and the last group may be ragged."""
        return math.ceil(self.batches_per_epoch(items) / self.grad_accum)

    def batches_per_epoch(self, items: int) -> int:
        """Return the batches of one epoch over `items` rows: with `drop_last`, the whole ones alone, at least one."""
        return max(1, items // self.batch_size) if self.drop_last else math.ceil(items / self.batch_size)

    def total_steps(self, length: Length, items: int) -> int:
        """Return the optimizer steps of a run of some length over `items` rows."""
        return length.in_steps(self.steps_per_epoch(items))


def _listed(written: object) -> object:
    return [written] if isinstance(written, str) else written


class DecodeSettings(Settings):
    """How `local/transformers` and `local/vllm` answer."""

    dtype: Literal["float32", "bfloat16"] = Field(default="float32", description="Weights' type when generating.")
    model_defaults: bool = Field(
        default=False,
        strict=False,
        description="Whether what the model's own generation_config sets beyond the recipe is applied: repetition_penalty,"
        " min_new_tokens, and for sampled answers top_k and min_p. Greedy means greedy without it.",
    )
    thoughts: Annotated[tuple[str, ...], Field(strict=False), BeforeValidator(_listed)] = Field(
        default=(),
        description="The two marks around a model's thoughts, `[OPEN, CLOSE]`, or `none`; left out: as its chat template shows them."
        " Thoughts are kept apart, and no judge reads them.",
    )

    @field_validator("thoughts")
    @classmethod
    def _are_marks(cls, thoughts_: tuple[str, ...]) -> tuple[str, ...]:
        thoughts.check(thoughts_)
        return thoughts_
