"""TRL's trainer for one run: in this process alone, or in one process for each of several GPUs. Only workers import this.

Several processes shard a model's weights, gradients and optimizer among them (torch's `fully_shard`, by accelerate and TRL). Each
reads every batch and takes its share of the rows, so that a step is over the very rows that it is over in one process.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias, TypeVar

import torch
from accelerate import PartialState
from accelerate.data_loader import prepare_data_loader
from accelerate.utils import broadcast_object_list
from datasets import Dataset
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader
from transformers import PrinterCallback
from trl import SFTConfig, SFTTrainer

from adapters.chat import IGNORED
from adapters.local import pictures
from adapters.local.packs.passes import Passes
from adapters.local.packs.schedule import BatchSchedule
from adapters.whole_model import is_quantised
from engine.ports import Context, TrainingRun

T = TypeVar("T")

Rows: TypeAlias = Sequence[Mapping[str, Any]]
"""Encoded rows: `input_ids` and `labels`, and for a run with images those of each row."""

ROWS = "rows_at_once"
"""Under this name a trainer's history has the rows that went through the model at once, of each process."""

SHARDED: Mapping[str, Any] = MappingProxyType(
    {
        "fsdp": True,
        "fsdp_config": {"version": 2, "reshard_after_forward": True, "state_dict_type": "FULL_STATE_DICT"},
        "accelerator_config": {"gradient_accumulation_kwargs": {"sync_each_batch": True}},
    }
)
"""What TRL is told where there are several processes. Gradients are reduced after each batch: kept whole until the end of a step, they
would take the memory that sharding saves."""


class Trainer(SFTTrainer):  # type: ignore[misc] # trl's types are not followed
    """TRL's trainer, whose batches go through the model in parts.

    Attributes:
        rows_at_once: Rows of a part.
        schedule: The learning rate of each step.
        after_part: Is told of each part that is done; may raise, and then nothing of the step counts.
    """

    rows_at_once: int
    schedule: BatchSchedule
    after_part: Callable[[], None]

    def training_step(self, model: Any, inputs: Mapping[str, Tensor], num_items_in_batch: Any = None) -> Tensor:
        """Add the gradients of a batch, part by part; each part is as wide as its longest row.

        The loss is a sum over tokens, divided by the answer tokens of the whole step: so parts add up to the batch, and so do the
        shares of several processes, of whose gradients the mean is taken.
        """
        if (many := self.args.world_size) > 1:
            inputs = share(inputs, self.args.process_index, many)
            num_items_in_batch = num_items_in_batch / many  # each process has counted the whole batch
        losses = []
        for part in pictures.parts(inputs, self.rows_at_once):
            losses.append(super().training_step(model, part, num_items_in_batch))
            self.after_part()
        total: Tensor = torch.stack(losses).sum()
        return total

    def compute_loss_context_manager(self) -> Any:
        """Compute in bfloat16 where the run is to, with weights in float32; accelerate would round sharded weights for all of a layer."""
        if self.args.world_size > 1 and self.schedule.settings.is_autocast:
            return torch.autocast(self.args.device.type, torch.bfloat16)
        return super().compute_loss_context_manager()

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Note with every step how many rows went through the model at once."""
        most = -(-self.args.per_device_train_batch_size // self.args.world_size)
        super().log(logs | {ROWS: min(self.rows_at_once, most)}, start_time)

    def get_train_dataloader(self) -> Any:
        """Return what reads the batches: in the order of one process, also where there are several, and whole in each of them."""
        if self.args.world_size == 1:
            return super().get_train_dataloader()
        plain: DataLoader[Any] = DataLoader(
            self.train_dataset,
            self.args.per_device_train_batch_size,
            shuffle=True,
            collate_fn=self.data_collator,
            drop_last=self.args.dataloader_drop_last,
        )
        return prepare_data_loader(
            plain,
            self.args.device,
            num_processes=1,
            process_index=0,
            put_on_device=True,
            use_seedable_sampler=True,
            data_seed=self.args.data_seed,
        )

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """Make the schedule: transformers' own, or for `step` a function of the step, since transformers has none."""
        rate, settings = self.schedule.learning_rate, self.schedule.settings
        if settings.schedule != "step":
            return super().create_scheduler(num_training_steps, optimizer)
        self.lr_scheduler: LambdaLR = LambdaLR(optimizer or self.optimizer, lambda done: rate(done + 1) / settings.lr)
        return self.lr_scheduler


def share(inputs: Mapping[str, Tensor], place: int, many: int) -> dict[str, Tensor]:
    """Return one process's rows of a batch: as many for each process, because all of them must go through the layers together.

    Who has a row too few goes through the first again, with nothing in it for the loss to look at.

    Args:
        inputs: The batch, each [rows, length].
        place: Which process, from 0.
        many: How many processes, >= 1.
    """
    rows = len(inputs["input_ids"])
    own = {name: values[place::many] for name, values in inputs.items()}
    if len(own["input_ids"]) == -(-rows // many):
        return own
    idle = {name: values[:1] for name, values in inputs.items()} | {
        "labels": torch.full_like(inputs["labels"][:1], IGNORED)
    }
    return {name: torch.cat([own[name], idle[name]]) for name in own}


def together(decide: Callable[[], T]) -> T:
    """Return what the first of a run's processes decides; the others wait for it. A process that is alone decides."""
    made = [decide() if PartialState().is_main_process else None]
    found: T = broadcast_object_list(made)[0]
    return found


class _Arguments(SFTConfig):  # type: ignore[misc] # trl's types are not followed
    """TRL's arguments, for a process that trains on one GPU though it may see others."""

    @property
    def n_gpu(self) -> int:
        """At most one: with more, the trainer would copy the model to all that it sees, and multiply the batch."""
        found: int = super().n_gpu
        return min(found, 1)


def arguments(run: TrainingRun, context: Context, folder: Path, passes: Passes) -> SFTConfig:
    """Return how TRL is to train a run.

    Args:
        run: The run.
        context: The worker, or one of the processes that shard a model.
        folder: Where states are written.
        passes: How batches go through the model.
    """
    settings, length, items = run.settings, run.checkpoints[-1].length, len(run.rows)
    is_in_epochs = length.steps is None and length.max_steps is None
    total = settings.total_steps(length, items)
    schedule = "constant_with_warmup" if settings.schedule == "constant" else settings.schedule
    more = {"optim": settings.optimizer} if settings.optimizer != "adamw" else {}
    is_sharded = settings.is_sharded(context.devices)
    more |= SHARDED if is_sharded else {}
    return _Arguments(
        output_dir=str(folder),
        num_train_epochs=length.epochs or 1,
        # transformers lets max_steps override the epochs, upwards too, and trains for as many epochs as it takes.
        max_steps=-1 if is_in_epochs else total,
        per_device_train_batch_size=settings.batch_size,
        gradient_accumulation_steps=settings.grad_accum,
        dataloader_drop_last=settings.drop_last and items >= settings.batch_size,
        learning_rate=settings.lr,
        lr_scheduler_type=schedule if settings.schedule != "step" else "constant",
        warmup_steps=settings.warmup(total),
        weight_decay=settings.weight_decay,
        adam_beta1=settings.beta1,
        adam_beta2=settings.beta2,
        adam_epsilon=settings.epsilon,
        max_grad_norm=settings.max_grad_norm,
        max_length=settings.max_length,
        router_aux_loss_coef=0.0,  # of experts: a mean over what goes through the model at once, which packs do not have
        seed=run.seed,
        data_seed=run.seed,
        bf16=settings.is_autocast
        and not is_sharded,  # else the weights have their type already, or `Trainer` sees to it
        gradient_checkpointing=passes.is_checkpointed,
        gradient_checkpointing_kwargs={"use_reentrant": False} if passes.is_checkpointed else None,
        dataset_kwargs={"skip_prepare_dataset": True},  # `chat.training_rows` has prepared it
        remove_unused_columns=False,  # there are no others
        use_cpu=context.device == "cpu",
        dataloader_pin_memory=False,
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="no",  # `_Training` says when
        report_to="none",
        disable_tqdm=True,
        **more,
    )


def trainer(model: Any, processing: Any, rows: Rows, arguments: SFTConfig) -> Trainer:
    """Return TRL's trainer of a model, which has an adapter on it for LoRA.

    Args:
        model: The model.
        processing: Its tokenizer; for rows with images its processor.
        rows: The rows.
        arguments: How it is trained.
    """
    collator = pictures.Collator(processing) if pictures.MANY in rows[0] else None
    data = Dataset.from_list([dict(row) for row in rows])
    named = model.named_parameters() if is_quantised(model) else ()
    drawn = {name: weight.detach().clone() for name, weight in named if weight.requires_grad}
    made = Trainer(model=model, args=arguments, train_dataset=data, processing_class=processing, data_collator=collator)
    made.model_accepts_loss_kwargs = True  # whatever the model says: TRL divides by the answer tokens itself
    for name, weight in (
        made.model.named_parameters() if drawn else ()
    ):  # TRL rounds adapters of quantised models to bfloat16
        if weight.requires_grad:
            weight.data = drawn[name]
    made.remove_callback(PrinterCallback)
    return made
