"""One training run with TRL's SFTTrainer, stopped at every checkpoint. Only workers import this: it starts torch.

At each checkpoint the trainer saves its state and stops, the weights are exported, and it goes on from the state. So a
checkpoint is yielded as soon as it is reached, nothing that happens meanwhile can disturb the random numbers, and going on to
the next one is the same path as going on after a crash. On CPU the weights at every checkpoint are those of a run of its own,
bit for bit, under a schedule that is a function of the step alone; on a GPU, up to the kernels' order of summation.

Each run reads a model of its own and leaves none behind: trainers change more of a model than its weights.

One run may have several processes, one for each GPU (`sharded.py`): the first alone keeps states, writes weights, and decides what
depends on time.
"""

from __future__ import annotations

import math
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import torch
from peft import get_peft_model
from transformers import TrainerCallback, TrainerState, set_seed

from adapters import chat, model_folder, vision
from adapters.local import lora, memory, pictures
from adapters.local.batches import out_of_memory
from adapters.local.loaded import contents, read_tokenizer
from adapters.local.packs.passes import Passes
from adapters.local.packs.schedule import BatchSchedule
from adapters.local.states import SavedState, SavedStates, pause_after, run_identity
from adapters.local.trainer import ROWS, Rows, Trainer, arguments, together, trainer
from adapters.model_folder import ADAPTER
from adapters.whole_model import read_whole, set_up
from engine.domain.cost import Usage
from engine.domain.results import TrainingStep
from engine.ports import Checkpoint, Context, Fit, Pulse, StoppedError, TrainingRun, Tuned

Reached: TypeAlias = Iterator[tuple[str, Tuned]]

PATIENCE = 5.0
"""Seconds that a run which is to stop goes on for the end of a step. Of one whose steps take longer, states are saved within epochs too."""

CARD = "README.md"
"""PEFT's description of an adapter, which says nothing that its configuration does not."""


@dataclass(frozen=True, slots=True)
class Job:
    """A run that is ready to train.

    Attributes:
        run: The run.
        processing: Its model's tokenizer; for rows with images its processor.
        rows: Its encoded rows.
        passes: How its batches go through the model.
    """

    run: TrainingRun
    processing: Any
    rows: Rows
    passes: Passes


def train(run: TrainingRun, context: Context, trained: Callable[[Job, Context], Reached]) -> Reached:
    """Train up to the last checkpoint, and yield (key, what it left) at each.

    It goes on from the state in `run.state` when that is of the same run and not beyond the first checkpoint.

    Args:
        run: The run.
        context: The worker.
        trained: Trains: `trained` in this process, or `sharded.trained` in one for each GPU.

    Raises:
        FloatingPointError: At the step where the loss is no longer finite; checkpoints before it have been yielded.
        StoppedError: The run is to stop; the state at the last step is kept.
        ValueError: When a row does not fit `max_length`.
    """
    context.pulse.beat(run.checkpoints[0].key, 0, 1)
    set_up(context)
    tokenizer = read_tokenizer(run.model.base, run.model.template)
    most, images = run.settings.max_length, vision.image_tokens(Path(run.model.base))
    whole = chat.whole_rows(tokenizer, run.rows, images)
    rows: Rows = chat.cut(run.rows, whole, most, images)
    longer = chat.are_longer(whole, most)
    passes, yielded = planned(run, context, max(len(row["input_ids"]) for row in rows)), 0
    if any(turn.images for row in run.rows for turn in row.turns):
        rows = pictures.with_images(rows, run.rows)
        tokenizer = pictures.processor(run.model.base, tokenizer)
    while True:
        rest = replace(run, checkpoints=run.checkpoints[yielded:])
        try:
            for key, tuned in trained(Job(rest, tokenizer, rows, passes), context):
                yielded += 1
                yield key, replace(tuned, cut_rows=longer)
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


def trained(job: Job, context: Context) -> Reached:
    """Train in this process, which may be one of several; yields as `train` does."""
    clock = time.monotonic()
    context.warm.drop("base")  # its memory is this run's
    run, rows, passes, settings = job.run, job.rows, job.passes, job.run.settings
    identity = run_identity(run, contents(run.model), context)
    if settings.dropout:  # masks are drawn for each part of a batch
        identity["rows_at_once"] = passes.rows
    states = SavedStates(run.state, identity)
    is_sharded = settings.is_sharded(context.devices)  # its layers go to the GPU one by one, each as a shard
    where = ("cpu", 1) if is_sharded else (context.device, context.devices)
    model = read_whole(run.model, settings.base_dtype, *where)
    set_seed(run.seed)  # before PEFT draws the adapter's initial weights
    sees = vision.reads_images(Path(run.model.base))
    if settings.method == "lora":  # its matrices are float32, whatever the base is
        model = get_peft_model(model, lora.configured(settings, vision.EXCLUDED if sees else None))
    elif sees:
        pictures.freeze(model)
    made = trainer(model, job.processing, rows, arguments(run, context, states.workshop, passes))
    made.rows_at_once = passes.rows
    made.schedule = BatchSchedule(settings, run.checkpoints[-1].length, len(rows), run.seed)
    training = _Training(run, rows, states, context.pulse)
    training.schedule, training.passes = made.schedule, passes
    made.after_part = training.after_part
    made.add_callback(training)
    for checkpoint in run.checkpoints:
        tuned = training.advance(made, checkpoint, clock)
        clock = time.monotonic()
        yield checkpoint.key, tuned


class _Training(TrainerCallback):  # type: ignore[misc] # transformers' types are not followed
    """Where a trainer is: stops it at the next checkpoint, and has the run's state saved there and on the way.

    Args:
        run: What to train.
        rows: The training rows.
        states: Where the run's states are kept.
        pulse: Where to say how far it is.

    Attributes:
        schedule: Which rows each step reads.
        passes: How batches go through the model.
    """

    schedule: BatchSchedule
    passes: Passes

    def __init__(self, run: TrainingRun, rows: Rows, states: SavedStates, pulse: Pulse) -> None:
        """Find where to begin."""
        self._pulse = pulse
        self._stopped: StoppedError | None = None
        self._run = run
        self._rows = rows
        self._states = states
        self._per_epoch: int = run.settings.steps_per_epoch(len(rows))
        wanted = {checkpoint.key for checkpoint in run.checkpoints}
        found = together(lambda: states.latest(self._end(run.checkpoints[0]), wanted))
        self._begin = found or SavedState(states.workshop, 0, ())

    def _end(self, checkpoint: Checkpoint) -> int:
        end: int = self._run.settings.total_steps(checkpoint.length, len(self._rows))
        return end

    def advance(self, trainer: Trainer, checkpoint: Checkpoint, since: float) -> Tuned:
        """Train up to a checkpoint, write its weights, and return what this part of the run took.

        Args:
            trainer: TRL's trainer, with this as a callback.
            checkpoint: The next one.
            since: When this part began, by the monotonic clock.
        """
        begin, end = self._begin, self._end(checkpoint)
        if begin.step == end:
            history = TrainerState.load_from_json(str(begin.folder / "trainer_state.json")).log_history
            saved = together(lambda: self._again(begin, checkpoint))
        else:
            saved = self._train(trainer, checkpoint, since)
            _save_weights(trainer, checkpoint.folder)
            history = trainer.state.log_history
        self._begin = saved.accounted
        usage = Usage(
            optimizer_steps=end - begin.counted,
            train_tokens=self._tokens(begin.counted, end),
            device_seconds=time.monotonic() - since + begin.seconds,
        )
        return Tuned(_steps_taken(history), usage, begin.passed[-1] if begin.passed else None)

    def _again(self, begin: SavedState, checkpoint: Checkpoint) -> SavedState:
        """Take a checkpoint out of the state that was saved at its step."""
        _copy_weights(begin.folder, checkpoint.folder)
        return self._states.mark(begin, checkpoint.key)

    def _train(self, trainer: Trainer, checkpoint: Checkpoint, since: float) -> SavedState:
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

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Count the parts in which the step's rows go through the model."""
        del control
        self._step, self._step_began, self._done = state.global_step, time.monotonic(), 0
        own = [-(-len(batch) // args.world_size) for batch in self.schedule.batches(self._step + 1)]
        self._parts = sum(-(-rows // self.passes.rows) for rows in own)

    def after_part(self) -> None:
        """Say how far the step is.

        Raises:
            StoppedError: The run is to stop, and the step's end is too far. The weights have not moved: the state saved last is of
                this run.
        """
        self._done += 1
        if self._done < self._parts and (stopped := together(self._said_within)) is not None:
            raise stopped

    def _said_within(self) -> StoppedError | None:
        share, counted = self._done / self._parts, self._begin.counted
        stopped = self._word(self._step + share - counted, self._end(self._next) - counted)
        is_near = (time.monotonic() - self._step_began) * (1 / share - 1) <= PATIENCE
        return None if is_near else stopped

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Stop and save at the checkpoint, and when the run is to stop; save at the end of an epoch or a long step, now and then."""
        del args
        end = self._end(self._next)
        self._stopped, is_due = together(lambda: self._said(state.global_step))
        if self._stopped is not None:
            control.should_training_stop = control.should_save = True
        elif state.global_step == end:
            control.should_training_stop = True
            control.should_save = self._run.keep_state or self._next is not self._run.checkpoints[-1]
        else:
            control.should_save = is_due

    def _said(self, step: int) -> tuple[StoppedError | None, bool]:
        """Say how far the run is; return the word to stop, if it comes, and whether a state may be saved by now."""
        self._asked = time.monotonic()
        counted, end = self._begin.counted, self._end(self._next)
        if (stopped := self._word(step - counted, end - counted)) is not None:
            return stopped, False
        is_time = step % self._per_epoch == 0 or self._asked - self._step_began > PATIENCE
        return None, is_time and self._asked >= self._quiet_until

    def _word(self, done: float, of: float) -> StoppedError | None:
        """Say how far the run is; return the word to stop, if it comes."""
        try:
            self._pulse.beat(self._next.key, done, of)
        except StoppedError as stopped:
            return StoppedError(*stopped.args)
        return None

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
        state = SavedState(written, step, passed, begin.counted, seconds, is_checkpoint)
        self._saved = together(lambda: self._states.keep(state))
        now = time.monotonic()
        self._quiet_until = now + pause_after(now - self._asked)


def _steps_taken(history: Sequence[Mapping[str, float]]) -> list[TrainingStep]:
    return [
        TrainingStep(int(entry["step"]), entry["epoch"], entry["loss"], entry["learning_rate"], int(entry[ROWS]))
        for entry in history
        if "loss" in entry
    ]


def _save_weights(trainer: Trainer, folder: Path) -> None:
    """Write the tuned weights; for LoRA, the adapter alone. Of several processes, the first gathers and writes them."""
    if trainer.args.world_size == 1:
        trainer.model.save_pretrained(folder)
    else:
        names = {
            name for name, _ in trainer.model.named_parameters()
        }  # each weight once, also where two layers share it
        whole = trainer.accelerator.get_state_dict(trainer.model)
        state = {name: weight for name, weight in whole.items() if name in names}
        together(lambda: trainer.model.save_pretrained(folder, state_dict=state))
    (folder / CARD).unlink(missing_ok=True)


def _copy_weights(state: Path, folder: Path) -> None:
    """Copy the tuned weights out of a saved state: what `_save_weights` would have written at that step."""
    for name in ("config.json", "generation_config.json", ADAPTER):
        if (state / name).is_file():
            shutil.copy(state / name, folder)
    for path in state.glob("*.safetensors*"):
        shutil.copy(path, folder)
