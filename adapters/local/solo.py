"""One training run with TRL's SFTTrainer, stopped at every checkpoint. Only workers import this: it starts torch.

At each checkpoint the trainer saves its state and stops, the weights are exported, and it goes on from the state. So a
checkpoint is yielded as soon as it is reached, nothing that happens meanwhile can disturb the random numbers, and going on to
the next one is the same path as going on after a crash. On CPU the weights at every checkpoint are those of a run of its own,
bit for bit, under a schedule that is a function of the step alone; on a GPU, up to the kernels' order of summation.

Each run reads a model of its own and leaves none behind: trainers change more of a model than its weights.
"""

from __future__ import annotations

import math
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import get_peft_model
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR
from transformers import PrinterCallback, TrainerCallback, TrainerState, set_seed
from trl import SFTConfig, SFTTrainer

from adapters import chat, model_folder
from adapters.local import lora, memory
from adapters.local.batches import out_of_memory
from adapters.local.loaded import contents, read_tokenizer
from adapters.local.packs.passes import Passes
from adapters.local.packs.schedule import BatchSchedule
from adapters.local.states import SavedState, SavedStates, pause_after, run_identity
from adapters.model_folder import ADAPTER
from adapters.whole_model import is_quantised, read_whole, set_up
from engine.domain.cost import Usage
from engine.domain.results import TrainingStep
from engine.ports import Checkpoint, Context, Fit, Pulse, StoppedError, TrainingRun, Tuned

Rows = Sequence[Mapping[str, list[int]]]

CARD = "README.md"
"""PEFT's description of an adapter, which says nothing that its configuration does not."""


def train(run: TrainingRun, context: Context) -> Iterator[tuple[str, Tuned]]:
    """Train up to the last checkpoint, and yield (key, what it left) at each.

    It goes on from the state in `run.state` when that is of the same run and not beyond the first checkpoint.

    Args:
        run: The run.
        context: The worker.

    Raises:
        FloatingPointError: At the step where the loss is no longer finite; checkpoints before it have been yielded.
        StoppedError: The run is to stop; the state at the last step is kept.
        ValueError: When a row does not fit `max_length`.
    """
    context.pulse.beat(run.checkpoints[0].key, 0, 1)
    set_up(context)
    tokenizer = read_tokenizer(run.model.base)
    rows = chat.training_rows(tokenizer, run.rows, run.settings.max_length)
    passes, yielded = planned(run, context, max(len(row["input_ids"]) for row in rows)), 0
    while True:
        rest = replace(run, checkpoints=run.checkpoints[yielded:])
        try:
            for key, tuned in _trained(rest, context, tokenizer, rows, passes):
                yielded += 1
                yield key, tuned
        except (RuntimeError, MemoryError) as error:
            smaller = passes.smaller(can_checkpoint=run.settings.can_checkpoint)
            if not out_of_memory(error) or smaller is None:
                raise
            passes = smaller
        else:
            return
        if context.device != "cpu":  # outside of the handler: the error's frames hold the memory
            torch.cuda.empty_cache()


def planned(run: TrainingRun, context: Context, longest: int) -> Passes:
    """Return how the batches go through the model: what the plan says, or the rule where it says nothing.

    Args:
        run: The run.
        context: The worker.
        longest: Tokens of the longest row.
    """
    fit, settings = run.fit or Fit(), run.settings
    weights = model_folder.parameters(Path(run.model.base)) or sys.maxsize
    rule = memory.rows_at_once(settings, weights, longest, torch.device(context.device).type)
    return Passes.planned(fit, settings, rule)


def _trained(
    run: TrainingRun, context: Context, tokenizer: Any, rows: Rows, passes: Passes
) -> Iterator[tuple[str, Tuned]]:
    clock = time.monotonic()
    context.warm.drop("base")  # its memory is this run's
    settings = run.settings
    states = SavedStates(run.state, run_identity(run, contents(run.model), context))
    model = read_whole(run.model, settings.base_dtype, context.device)
    set_seed(run.seed)  # before PEFT draws the adapter's initial weights
    if settings.method == "lora":
        model = get_peft_model(model, lora.configured(settings))  # its matrices are float32, whatever the base is
    trainer = _trainer(model, tokenizer, rows, _arguments(run, context, states.workshop, passes))
    trainer.rows_at_once = passes.rows
    trainer.schedule = BatchSchedule(settings, run.checkpoints[-1].length, len(rows), run.seed)
    training = _Training(run, rows, states, context.pulse)
    training.schedule = trainer.schedule
    trainer.add_callback(training)
    for checkpoint in run.checkpoints:
        tuned = training.advance(trainer, checkpoint, clock)
        clock = time.monotonic()
        yield checkpoint.key, tuned


class _Trainer(SFTTrainer):  # type: ignore[misc] # trl's types are not followed
    """TRL's trainer, whose batches go through the model in parts.

    Attributes:
        rows_at_once: Rows of a part.
        schedule: The learning rate of each step.
    """

    rows_at_once: int
    schedule: BatchSchedule

    def training_step(self, model: Any, inputs: Mapping[str, Tensor], num_items_in_batch: Any = None) -> Tensor:
        """Add the gradients of a batch, part by part; each part is as wide as its longest row.

        The loss is a sum over tokens, divided by the answer tokens of the whole step: so parts add up to the batch.
        """
        rows = len(inputs["input_ids"])
        losses = []
        for start in range(0, rows, self.rows_at_once):
            part = {name: values[start : start + self.rows_at_once] for name, values in inputs.items()}
            read = part["attention_mask"].any(0)  # the columns that are not all padding
            part = {name: values[:, read] for name, values in part.items()}
            losses.append(super().training_step(model, part, num_items_in_batch))
        total: Tensor = torch.stack(losses).sum()
        return total

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """Make the schedule: transformers' own, or for `step` a function of the step, since transformers has none."""
        rate, settings = self.schedule.learning_rate, self.schedule.settings
        if settings.schedule != "step":
            return super().create_scheduler(num_training_steps, optimizer)
        self.lr_scheduler: LambdaLR = LambdaLR(optimizer or self.optimizer, lambda done: rate(done + 1) / settings.lr)
        return self.lr_scheduler


class _Training(TrainerCallback):  # type: ignore[misc] # transformers' types are not followed
    """Where a trainer is: stops it at the next checkpoint, and has the run's state saved there and on the way.

    Args:
        run: What to train.
        rows: The training rows.
        states: Where the run's states are kept.
        pulse: Where to say how far it is.

    Attributes:
        schedule: Which rows each step reads.
    """

    schedule: BatchSchedule

    def __init__(self, run: TrainingRun, rows: Rows, states: SavedStates, pulse: Pulse) -> None:
        """Find where to begin."""
        self._pulse = pulse
        self._stopped: StoppedError | None = None
        self._run = run
        self._rows = rows
        self._states = states
        self._per_epoch: int = run.settings.steps_per_epoch(len(rows))
        wanted = {checkpoint.key for checkpoint in run.checkpoints}
        self._begin = states.latest(self._end(run.checkpoints[0]), wanted) or SavedState(states.workshop, 0, ())

    def _end(self, checkpoint: Checkpoint) -> int:
        end: int = self._run.settings.total_steps(checkpoint.length, len(self._rows))
        return end

    def advance(self, trainer: SFTTrainer, checkpoint: Checkpoint, since: float) -> Tuned:
        """Train up to a checkpoint, write its weights, and return what this part of the run took.

        Args:
            trainer: TRL's trainer, with this as a callback.
            checkpoint: The next one.
            since: When this part began, by the monotonic clock.
        """
        begin, end = self._begin, self._end(checkpoint)
        if begin.step == end:
            _copy_weights(begin.folder, checkpoint.folder)
            history = TrainerState.load_from_json(str(begin.folder / "trainer_state.json")).log_history
            saved = self._states.mark(begin, checkpoint.key)
        else:
            saved = self._train(trainer, checkpoint, since)
            _save_weights(trainer.model, checkpoint.folder)
            history = trainer.state.log_history
        self._begin = saved.accounted
        usage = Usage(
            optimizer_steps=end - begin.counted,
            train_tokens=self._tokens(begin.counted, end),
            device_seconds=time.monotonic() - since + begin.seconds,
        )
        return Tuned(_steps_taken(history), usage, begin.passed[-1] if begin.passed else None)

    def _train(self, trainer: SFTTrainer, checkpoint: Checkpoint, since: float) -> SavedState:
        """Train up to a checkpoint, and return the last state saved: not the one there, if it is the last and not to be kept."""
        self._next, self._since, self._saved = checkpoint, since, self._begin
        self._asked = time.monotonic()
        self._quiet_until = self._asked + pause_after(0)
        trainer.train(resume_from_checkpoint=str(self._begin.folder) if self._begin.step else None)
        if self._stopped is not None:
            raise self._stopped
        if trainer.state.global_step != self._end(checkpoint):
            raise RuntimeError(
                f"the trainer stopped at step {trainer.state.global_step}, not at step {self._end(checkpoint)}"
            )
        return self._saved

    def _tokens(self, begin: int, end: int) -> int:
        """Tokens of the rows that are read after step `begin` up to step `end`."""
        batches = (batch for step in range(begin, end) for batch in self.schedule.batches(step + 1))
        return sum(len(self._rows[row]["input_ids"]) for batch in batches for row in batch)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Stop and save at the checkpoint, and when the run is to stop; save at the end of an epoch, now and then."""
        del args
        self._asked = time.monotonic()
        counted, end = self._begin.counted, self._end(self._next)
        try:
            self._pulse.beat(self._next.key, state.global_step - counted, end - counted)
        except StoppedError as stopped:
            self._stopped = stopped
            control.should_training_stop = control.should_save = True
            return
        if state.global_step == end:
            control.should_training_stop = True
            control.should_save = self._run.keep_state or self._next is not self._run.checkpoints[-1]
        elif state.global_step % self._per_epoch == 0:
            control.should_save = self._asked >= self._quiet_until

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, float], **_: Any) -> None:
        """Refuse a loss or gradient that is no number, before the state after it is saved.

        Raises:
            FloatingPointError: Naming the step.
        """
        del args, control
        for name, what in (("loss", "the loss"), ("grad_norm", "the gradient's norm")):
            if not math.isfinite(logs.get(name, 0.0)):
                raise FloatingPointError(
                    f"{what} became {logs[name]} at step {state.global_step}; a lower learning rate may help"
                )

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Take over the state that the trainer has written."""
        del args, control
        now, step, begin = time.monotonic(), state.global_step, self._begin
        is_checkpoint = step == self._end(self._next)
        passed = (*begin.passed, self._next.key) if is_checkpoint else begin.passed
        written = self._states.workshop / f"checkpoint-{step}"
        seconds = begin.seconds + now - self._since
        self._saved = self._states.keep(SavedState(written, step, passed, begin.counted, seconds, is_checkpoint))
        now = time.monotonic()
        self._quiet_until = now + pause_after(now - self._asked)


def _arguments(run: TrainingRun, context: Context, folder: Path, passes: Passes) -> SFTConfig:
    settings, length, items = run.settings, run.checkpoints[-1].length, len(run.rows)
    is_in_epochs = length.steps is None and length.max_steps is None
    total = settings.total_steps(length, items)
    schedule = "constant_with_warmup" if settings.schedule == "constant" else settings.schedule
    more = {"optim": settings.optimizer} if settings.optimizer != "adamw" else {}
    return SFTConfig(
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
        seed=run.seed,
        data_seed=run.seed,
        bf16=settings.is_autocast,  # else the weights have their type already
        gradient_checkpointing=passes.is_checkpointed,
        gradient_checkpointing_kwargs={"use_reentrant": False} if passes.is_checkpointed else None,
        dataset_kwargs={"skip_prepare_dataset": True},  # `chat.training_rows` has prepared it
        use_cpu=context.device == "cpu",
        dataloader_pin_memory=False,
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="no",  # `_Training` says when
        report_to="none",
        disable_tqdm=True,
        **more,
    )


def _trainer(model: Any, tokenizer: Any, rows: Rows, arguments: SFTConfig) -> _Trainer:
    data = Dataset.from_list([dict(row) for row in rows])
    named = model.named_parameters() if is_quantised(model) else ()
    drawn = {name: weight.detach().clone() for name, weight in named if weight.requires_grad}
    trainer = _Trainer(model=model, args=arguments, train_dataset=data, processing_class=tokenizer)
    for name, weight in (
        trainer.model.named_parameters() if drawn else ()
    ):  # TRL rounds adapters of quantised models to bfloat16
        if weight.requires_grad:
            weight.data = drawn[name]
    trainer.remove_callback(PrinterCallback)
    return trainer


def _steps_taken(history: Sequence[Mapping[str, float]]) -> list[TrainingStep]:
    return [
        TrainingStep(int(entry["step"]), float(entry["epoch"]), float(entry["loss"]), float(entry["learning_rate"]))
        for entry in history
        if "loss" in entry
    ]


def _save_weights(model: Any, folder: Path) -> None:
    """Write the tuned weights; for LoRA, the adapter alone."""
    model.save_pretrained(folder)
    (folder / CARD).unlink(missing_ok=True)


def _copy_weights(state: Path, folder: Path) -> None:
    """Copy the tuned weights out of a saved state: what `_save_weights` would have written at that step."""
    for name in ("config.json", "generation_config.json", ADAPTER):
        if (state / name).is_file():
            shutil.copy(state / name, folder)
    for path in state.glob("*.safetensors*"):
        shutil.copy(path, folder)
