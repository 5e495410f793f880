"""`local/sft`: supervised fine-tuning on this machine: LoRA adapters many at a time, or one run at a time with TRL."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from adapters import images, vision
from adapters.lengths import look
from adapters.local import memory, starting
from adapters.local.loaded import loaded
from adapters.local.rates import ASSUMED_WEIGHTS, REFERENCE_RANK, rates
from adapters.local.settings import DecodeSettings, SftSettings
from adapters.model_folder import quantised
from engine.domain.conversation import ChatRow
from engine.domain.cost import Prediction, Usage
from engine.domain.stage import ModelRef
from engine.domain.sweep import Length
from engine.ports import Context, FirstJob, FirstSettings, Fit, Sharing, TrainingRun, Tuned, Workload

Reached = Iterator[tuple[str, Tuned | Exception]]

SPREAD = (0.75, 1.4)
"""The forecast's low and high device-seconds, as multiples of the expected ones, on a machine that was measured."""

GUESSED = (0.1, 3.0)
"""The same where it was not."""

AGAIN = {"lora": 1.5, "full": 4 / 3}
"""How much longer a token takes where activations are computed again: one forward pass of two, or three, such more."""

PURE_BFLOAT16 = (
    "tune.precision: bfloat16 trains weights of 8 bits of mantissa, which swallow small updates: SmolLM2-135M, tuned in full at"
    " 2e-5, was at a loss of 2.23 after 6 steps, and of 1.12 in float32; `mixed` computes in bfloat16 and keeps float32 weights"
)
"""Measured 2026-11-30 on the model named."""


class LocalFineTuner:
    """Fine-tuning in this process and on this worker's device, loss on the answer only.

    LoRA runs train as packs (`packs`); with `backend: trl`, and for full fine-tuning, each is a run of TRL's
    SFTTrainer (`solo.py`). On CPU the same task gives the same weights bit for bit, whatever else comes with it; on a
    GPU, up to the kernels' order of summation.
    """

    revision = 3
    Settings = SftSettings

    def start(self, job: FirstJob) -> FirstSettings:
        """Begin with a LoRA adapter."""
        return starting.tuning(job)

    def objection(self, settings: SftSettings, length: Length, model: ModelRef) -> str | None:
        """Refuse what quantised weights cannot do, and packs of vision-language models.

        Quantised weights cannot be tuned themselves, nor, of int8, serve several runs at once.
        """
        del length
        if settings.optimizer == "adamw_8bit" and find_spec("bitsandbytes") is None:
            return "`tune.optimizer` is adamw_8bit, and bitsandbytes is not installed: `pip install 'dosimeter[quantised]'`"
        if vision.reads_images(Path(model.base)) and not settings.pack_blocked:
            return "of a vision-language model `tune.backend` is trl: packs know language models alone"
        kind = model.quantise or quantised(Path(model.base))
        if kind and settings.method == "full":
            return f"`tune.method` is full, and the model's weights are quantised ({kind}): tune a LoRA adapter on them"
        if kind == "int8" and not settings.pack_blocked:
            return "on int8 weights `tune.backend` is trl: their products depend on all that is in the batch"
        return None

    def forecast(self, settings: SftSettings, length: Length, workload: Workload) -> Prediction:
        """Estimate tokens, optimizer steps and device-seconds, from what this machine takes for a model of the same shape.

        TRL reads a model for every run and leaves none in memory, so that whatever asks next has to read its own: both are
        counted with the run.
        """
        found = rates(workload, settings, DecodeSettings(dtype=settings.base_dtype))
        train, steps = found.train, settings.total_steps(length, workload.items)
        epochs = steps / settings.steps_per_epoch(workload.items)
        cut = [min(one, settings.max_length) for one in workload.lengths] or [0]
        tokens = workload.tokens * sum(cut) / max(1, sum(workload.lengths)) * epochs
        is_solo = bool(settings.pack_blocked) or workload.machine.devices > 1
        rows = memory.rows_at_once(settings, workload.parameters or ASSUMED_WEIGHTS, max(cut), workload.machine.device)
        passed = tokens * padding(cut, rows)
        rank = 1 + train.rank * (settings.rank - REFERENCE_RANK) if settings.method == "lora" else 1.0
        again = AGAIN[settings.method] if settings.gradient_checkpointing == "on" else 1.0
        expected = (
            train.run + steps * train.step + workload.items * epochs * train.row + passed * train.token * rank * again
        )
        expected += found.ask.load if is_solo else 0.0
        spread = SPREAD if found.measured else GUESSED
        most = max(tokens, min(workload.most, workload.items * settings.max_length) * epochs)
        low, mid, high = (
            Usage(optimizer_steps=steps, train_tokens=round(drawn), device_seconds=expected * factor)
            for drawn, factor in ((tokens, spread[0]), (tokens, 1.0), (most, spread[1]))
        )
        return Prediction(low, mid, high, found.ask.startup + train.first, found.basis)

    def fit(self, settings: SftSettings, workload: Workload) -> Fit | None:
        """Tell what a run takes of its worker's memory, cut so that it fits if it can; None for a model that cannot be sized."""
        if workload.base is None:
            return None
        folder = Path(workload.base.base)
        try:
            sizes = memory.shape(folder, settings.targets)
        except (OSError, ValueError):
            return None
        kind = (
            "" if workload.base.layers else workload.base.quantise or quantised(folder)
        )  # adapters are merged into whole weights
        longest = workload.longest or settings.max_length
        return memory.tuning_fit(settings, sizes, kind, longest, workload.machine)

    def look(self, settings: SftSettings, rows: Sequence[ChatRow], model: ModelRef) -> Sequence[str]:
        """Render and tokenize rows as training does, and decode their images."""
        folder = Path(model.base)
        if faults := look(folder, rows, settings.max_length, model.template):
            return faults
        if not any(turn.images for row in rows for turn in row.turns):
            return ()
        return [fault] if (fault := vision.fault(folder)) else list(images.faults(rows))

    def remarks(self, settings: SftSettings, lengths: Sequence[int]) -> Sequence[str]:
        """Say how many rows lose their end."""
        if not (longer := sum(one > settings.max_length for one in lengths)):
            return ()
        most = f"`tune.max_length` ({settings.max_length})"
        return (f"rows with more tokens than {most} lose their end: {longer:,} of {len(lengths):,}",)

    def notes(self, settings: SftSettings) -> Sequence[str]:
        """Warn of what changes the science and looks like a matter of speed."""
        if settings.method == "full" and settings.precision == "bfloat16":
            return (PURE_BFLOAT16,)
        return ()

    def warm_up(self) -> None:
        """Import what every run needs."""
        from adapters.local.packs import train  # noqa: F401 - for what it imports in turn

    def sharing(self, settings: SftSettings) -> Sharing:
        """Say what tune stages with these settings can share.

        A longer run passes through a shorter one when its learning rate is a function of the step alone: linear and
        cosine schedules look at the total number of steps, and so does a warm-up that is a share of them.
        """
        prefix_blocked = "" if settings.is_stepwise else "warmup_ratio" if settings.warmup_ratio else "schedule"
        shape = (settings.precision, settings.targets, settings.batch_size, settings.grad_accum)
        pack = (*shape, settings.can_checkpoint)  # else a run would draw its dropout again for the memory of another
        return Sharing(prefix_blocked, settings.pack_blocked, pack)

    def fine_tune(self, runs: Sequence[TrainingRun], context: Context) -> Reached:
        """Tune, and yield (key, what it left) of every checkpoint as soon as its weights are written.

        What stops a run is yielded for each checkpoint that it did not reach: FloatingPointError when its loss is no longer
        finite, ValueError when a row does not fit `max_length`, or whatever torch says.
        """
        blocked = [
            run
            for run in runs
            if run.settings.pack_blocked or context.devices > 1 or vision.reads_images(Path(run.model.base))
        ]  # a split model trains one at a time, and so does one that reads images
        packable = [run for run in runs if run not in blocked]
        if packable:
            yield from _reached(packable, partial(_packed, packable, context))
        for run in blocked:
            yield from _reached([run], partial(_solo, run, context))


def padding(lengths: Sequence[int], batch: int) -> float:
    """Return how many times more tokens than its rows' a batch has, on average, when each is as long as the longest.

    Args:
        lengths: Tokens of typical rows, at least one.
        batch: Rows of a batch, >= 1.
    """
    mixed = list(lengths)
    random.Random(0).shuffle(mixed)  # noqa: S311 - a sample's order, not a secret
    parts = [mixed[start : start + batch] for start in range(0, len(mixed), batch)]
    return sum(len(part) * max(part) for part in parts) / max(1, sum(mixed))


def _packed(runs: Sequence[TrainingRun], context: Context) -> Reached:
    from adapters.local.packs import train

    first = runs[0]
    return train.Training(loaded(first.model, first.settings.base_dtype, context), context).run(runs)


def _solo(run: TrainingRun, context: Context) -> Reached:
    from adapters.local import sharded, solo

    is_sharded = run.settings.is_sharded(context.devices)
    if is_sharded and vision.reads_images(Path(run.model.base)):
        raise ValueError(
            "a vision-language model is not sharded: for `tune.method: full` give each worker one GPU (`run.resources.gpus_per_host: 1`)"
        )
    return solo.train(run, context, sharded.trained if is_sharded else solo.trained)


def _reached(runs: Sequence[TrainingRun], start: Callable[[], Reached]) -> Reached:
    """Yield what `start()` yields; should it raise, yield the exception for every checkpoint that was not reached."""
    missing = [checkpoint.key for run in runs for checkpoint in run.checkpoints]
    try:
        for key, tuned in start():
            missing.remove(key)
            yield key, tuned
    except Exception as error:  # noqa: BLE001 - the port's promise: a failed run is a result of each of its checkpoints
        for key in missing:
            yield key, error
