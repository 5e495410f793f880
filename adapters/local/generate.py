"""`local/transformers`: answers of models on this machine."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from math import ceil
from pathlib import Path

from adapters.local import compute
from adapters.local.batches import SAMPLED_ROWS
from adapters.local.decoding import notes as decoding_notes
from adapters.local.loaded import loaded
from adapters.local.settings import DecodeSettings
from engine.domain.cost import Range, Usage
from engine.domain.stage import ModelRef
from engine.domain.sweep import Decoding
from engine.ports import Context, Generated, GenerateTask, Workload

TEMPLATE_TOKENS_PER_PROMPT = 4
ANSWER_SHARE = (0.1, 0.4, 1.0)
"""Answers' mean length as a share of max_new_tokens: low, expected, high."""

SPREAD = (0.5, 1.0, 2.5)


class TransformersGenerator:
    """Greedy or sampled decoding by transformers' `generate`, in this process and on this worker's device.

    One model and one benchmark at a time, in batches that on a CPU the task alone decides (`answers.py`): so the same task gives
    the same answers on the same machine, whatever `run.resources` says and whatever else is to do.
    """

    revision = 3
    Settings = DecodeSettings

    def notes(self, settings: DecodeSettings, decoding: Decoding, model: ModelRef) -> Sequence[str]:
        """Say which decoding fields the model sets of its own, and whether they are applied.

        Raises:
            ValueError: They are asked for, and not every generator has them.
        """
        return decoding_notes(Path(model.base), decoding, model_defaults=settings.model_defaults)

    def forecast(self, settings: DecodeSettings, decoding: Decoding, workload: Workload) -> Range:
        """Estimate tokens and device-seconds."""
        del settings
        answers = workload.items * decoding.samples
        is_solo = decoding.temperature > 0  # such answers are made one task at a time
        read = (workload.tokens + TEMPLATE_TOKENS_PER_PROMPT * workload.items) * decoding.samples
        ends = []
        for share, spread in zip(ANSWER_SHARE, SPREAD, strict=True):
            made = round(answers * max(1.0, decoding.max_new_tokens * share))
            batches = ceil(answers / SAMPLED_ROWS) if is_solo else 1
            steps = batches * round(decoding.max_new_tokens * share)
            work = compute.GENERATE_FLOP_PER_WEIGHT
            taken = compute.seconds(workload.parameters, read + made, steps, work, is_solo=is_solo)
            ends.append(Usage(prompt_tokens=read, generated_tokens=made, device_seconds=taken * spread))
        return Range(*ends)

    def warm_up(self) -> None:
        """Import what every task needs."""
        from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: F401 - these find the rest when named

        from adapters.local import answers  # noqa: F401 - for what it imports in turn

    def generate(self, tasks: Sequence[GenerateTask], context: Context) -> Iterator[tuple[str, Generated | Exception]]:
        """Answer every prompt of every task, `decoding.samples` times."""
        from adapters.local import answers

        by_start: dict[ModelRef, list[GenerateTask]] = {}
        for task in tasks:
            by_start.setdefault(task.model.below, []).append(task)
        for start, own in by_start.items():  # a model that has layers of its own is not what it is tuned from
            since = time.perf_counter()
            yield from answers.answered(own, loaded(start, own[0].settings.dtype, context), context, since)
