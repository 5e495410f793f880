"""`local/sft`: supervised fine-tuning on this machine: LoRA adapters many at a time, or one run at a time with TRL."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from adapters.local import compute
from adapters.local.loaded import loaded
from adapters.local.settings import SftSettings
from adapters.model_folder import quantised
from engine.domain.cost import Range, Usage
from engine.domain.stage import ModelRef
from engine.domain.sweep import Length
from engine.ports import Context, Sharing, TrainingRun, Tuned, Workload

Reached = Iterator[tuple[str, Tuned | Exception]]

TEMPLATE_TOKENS_PER_ROW = 5
SPREAD = (0.5, 2.5)
"""The forecast's low and high device-seconds, as multiples of the expected ones, until stages have been measured."""


class LocalFineTuner:
    """Fine-tuning in this process and on this worker's device, loss on the answer only.

    LoRA runs train as packs (`packs`); with `backend: trl`, and for full fine-tuning, each is a run of TRL's
    SFTTrainer (`solo.py`). On CPU the same task gives the same weights bit for bit, whatever else comes with it; on a
    GPU, up to the kernels' order of summation.
    """

    revision = 2
    Settings = SftSettings

    def objection(self, settings: SftSettings, length: Length, model: ModelRef) -> str | None:
        """Refuse what quantised weights cannot do: to be tuned themselves, or, of int8, to serve several runs at once."""
        del length
        kind = model.quantise or quantised(Path(model.base))
        if kind and settings.method == "full":
            return f"`tune.method` is full, and the model's weights are quantised ({kind}): tune a LoRA adapter on them"
        if kind == "int8" and not settings.pack_blocked:
            return "on int8 weights `tune.backend` is trl: their products depend on all that is in the batch"
        return None

    def forecast(self, settings: SftSettings, length: Length, workload: Workload) -> Range:
        """Estimate tokens, optimizer steps and device-seconds."""
        steps = settings.total_steps(length, workload.items)
        epochs = steps / settings.steps_per_epoch(workload.items)
        tokens = round((workload.tokens + TEMPLATE_TOKENS_PER_ROW * workload.items) * epochs)
        passes = steps * settings.grad_accum
        is_solo = bool(settings.pack_blocked)
        expected = compute.seconds(workload.parameters, tokens, passes, compute.TRAIN_FLOP_PER_WEIGHT, is_solo=is_solo)
        low, mid, high = (
            Usage(optimizer_steps=steps, train_tokens=tokens, device_seconds=expected * factor)
            for factor in (SPREAD[0], 1.0, SPREAD[1])
        )
        return Range(low, mid, high)

    def warm_up(self) -> None:
        """Import what every run needs."""
        from adapters.local.packs import train  # noqa: F401 - for what it imports in turn

    def sharing(self, settings: SftSettings) -> Sharing:
        """Say what tune stages with these settings can share.

        A longer run passes through a shorter one when its learning rate is a function of the step alone: linear and
        cosine schedules look at the total number of steps. (The warm-up is in steps, so it never prevents it.)
        """
        prefix_blocked = "" if settings.schedule == "constant" else "schedule"
        pack = (settings.dtype, settings.targets, settings.batch_size, settings.grad_accum)
        return Sharing(prefix_blocked, settings.pack_blocked, pack)

    def fine_tune(self, runs: Sequence[TrainingRun], context: Context) -> Reached:
        """Tune, and yield (key, what it left) of every checkpoint as soon as its weights are written.

        What stops a run is yielded for each checkpoint that it did not reach: FloatingPointError when its loss is no longer
        finite, ValueError when a row does not fit `max_length`, or whatever torch says.
        """
        packable = [run for run in runs if not run.settings.pack_blocked]
        if packable:
            yield from _reached(packable, partial(_packed, packable, context))
        for run in runs:
            if run.settings.pack_blocked:
                yield from _reached([run], partial(_solo, run, context))


def _packed(runs: Sequence[TrainingRun], context: Context) -> Reached:
    from adapters.local.packs import train

    first = runs[0]
    return train.Training(loaded(first.model, first.settings.dtype, context), context).run(runs)


def _solo(run: TrainingRun, context: Context) -> Reached:
    from adapters.local import solo

    return solo.train(run, context)


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
