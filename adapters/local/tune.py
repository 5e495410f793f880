"""`local/trl`: supervised fine-tuning by TRL's SFTTrainer, with PEFT's LoRA or of all weights."""

from __future__ import annotations

import copy
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from adapters.local import chat, compute
from adapters.local.loaded import loaded, quiet
from engine.domain.cost import Usage
from engine.domain.results import TrainingStep
from engine.domain.stage import Range
from engine.domain.sweep import TuneRecipe
from engine.ports import Context, Tuned, TuneTask, Workload

TEMPLATE_TOKENS_PER_ROW = 5
SPREAD = (0.5, 2.5)
"""The forecast's low and high device-seconds, as multiples of the expected ones, until stages have been measured."""


class TrlFineTuner:
    """TRL's SFTTrainer, loss on the answer only, in this process and on this host's device.

    On CPU the same task gives the same weights bit for bit; on a GPU, up to the kernels' order of summation.
    """

    revision = 1

    def forecast(self, settings: TuneRecipe, workload: Workload) -> Range:
        """Estimate tokens, optimizer steps and device-seconds."""
        steps, epochs = _steps(settings, workload.items)
        tokens = round((workload.tokens + TEMPLATE_TOKENS_PER_ROW * workload.items) * epochs)
        passes = steps * settings.grad_accum
        expected = compute.seconds(workload.parameters, tokens, passes, compute.TRAIN_FLOP_PER_WEIGHT)
        low, mid, high = (
            Usage(optimizer_steps=steps, train_tokens=tokens, device_seconds=expected * factor)
            for factor in (SPREAD[0], 1.0, SPREAD[1])
        )
        return Range(low, mid, high)

    @quiet()
    def fine_tune(self, task: TuneTask, context: Context) -> Tuned:
        """Tune, and write safetensors into `context.folder`.

        Raises:
            FloatingPointError: When the loss is no longer finite.
            ValueError: When a row does not fit `max_length`.
        """
        held = loaded(task.model, task.settings.dtype, context)
        rows = chat.training_rows(held.tokenizer, task.rows, task.settings.max_length)
        _seed(task.seed)
        model = held.to_tune(context.key, _lora(task.settings))
        with tempfile.TemporaryDirectory(prefix="dosimeter-trainer-") as scratch, _configs_kept(model):
            trainer = _trainer(model, held.tokenizer, rows, _arguments(task, context, scratch))
            trainer.train()
        steps = _steps_taken(trainer.state.log_history)
        _settle(model, context.folder)
        tokens = _tokens_seen(rows, task.settings, len(steps))
        return Tuned(steps, Usage(optimizer_steps=len(steps), train_tokens=tokens))


def _steps(settings: TuneRecipe, items: int) -> tuple[int, float]:
    """Optimizer steps, and the epochs that they make."""
    batches = math.ceil(items / settings.batch_size)
    per_epoch = math.ceil(batches / settings.grad_accum)
    steps = per_epoch * settings.epochs
    if settings.max_steps is not None:
        steps = min(steps, settings.max_steps)
    return steps, steps / per_epoch


def _seed(seed: int) -> None:
    from transformers import set_seed

    set_seed(seed)  # before PEFT draws the adapter's initial weights


def _lora(settings: TuneRecipe) -> Any | None:
    if settings.method == "full":
        return None
    from peft import LoraConfig

    every = settings.targets == ("all-linear",)
    return LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha or 2 * settings.rank,
        lora_dropout=settings.dropout,
        target_modules="all-linear" if every else list(settings.targets),
        task_type="CAUSAL_LM",
    )


def _arguments(task: TuneTask, context: Context, scratch: str) -> Any:
    from trl import SFTConfig

    settings = task.settings
    schedule = "constant_with_warmup" if settings.schedule == "constant" else settings.schedule
    return SFTConfig(
        output_dir=scratch,
        num_train_epochs=settings.epochs,
        # transformers lets max_steps override the epochs, upwards too; here it only ever cuts a run short.
        max_steps=-1 if settings.max_steps is None else _steps(settings, len(task.rows))[0],
        per_device_train_batch_size=settings.batch_size,
        gradient_accumulation_steps=settings.grad_accum,
        learning_rate=settings.lr,
        lr_scheduler_type=schedule,
        warmup_steps=settings.warmup_steps,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        max_length=settings.max_length,
        seed=task.seed,
        data_seed=task.seed,
        bf16=False,  # the weights have their type already
        gradient_checkpointing=False,
        dataset_kwargs={"skip_prepare_dataset": True},  # `chat.training_rows` has prepared it
        use_cpu=context.device == "cpu",
        dataloader_pin_memory=False,
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )


def _trainer(model: Any, tokenizer: Any, rows: Sequence[Mapping[str, list[int]]], arguments: Any) -> Any:
    from datasets import Dataset
    from transformers import PrinterCallback
    from trl import SFTTrainer

    data = Dataset.from_list([dict(row) for row in rows])
    trainer = SFTTrainer(model=model, args=arguments, train_dataset=data, processing_class=tokenizer)
    trainer.remove_callback(PrinterCallback)
    return trainer


@contextmanager
def _configs_kept(model: Any) -> Iterator[None]:
    """Restore the model's configurations: trainers align their special tokens with the tokenizer's.

    The base model is shared, so that without this its untuned answers would depend on what the host did before.
    """
    core = model.get_base_model() if hasattr(model, "get_base_model") else model
    kept = [(config, copy.deepcopy(vars(config))) for config in (core.config, core.generation_config)]
    try:
        yield
    finally:
        for config, was in kept:
            vars(config).clear()
            vars(config).update(was)


def _steps_taken(history: Sequence[Mapping[str, float]]) -> list[TrainingStep]:
    steps = [
        TrainingStep(int(entry["step"]), float(entry["epoch"]), float(entry["loss"]), float(entry["learning_rate"]))
        for entry in history
        if "loss" in entry
    ]
    for step in steps:
        if not math.isfinite(step.loss):
            message = f"the loss became {step.loss} at step {step.step}; a lower learning rate may help"
            raise FloatingPointError(message)
    return steps


def _tokens_seen(rows: Sequence[Mapping[str, list[int]]], settings: TuneRecipe, steps: int) -> int:
    """Tokens of the rows, all epochs; for a run cut short by `max_steps`, in proportion."""
    per_epoch = math.ceil(math.ceil(len(rows) / settings.batch_size) / settings.grad_accum)
    return round(sum(len(row["input_ids"]) for row in rows) * steps / per_epoch)


def _settle(model: Any, folder: Path) -> None:
    """Write the tuned weights (for LoRA, the adapter alone) and leave training mode."""
    model.eval()
    model.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)  # PEFT's model card template says nothing
