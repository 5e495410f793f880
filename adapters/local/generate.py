"""`local/transformers`: answers of models on this machine."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from adapters.lengths import asking_fault, has_end
from adapters.local import memory, starting
from adapters.local.batches import CPU_ROWS, CPU_TOKENS, SAMPLED_ROWS, batches
from adapters.local.decoding import notes as decoding_notes
from adapters.local.loaded import loaded
from adapters.local.rates import AskRates, rates
from adapters.local.settings import DecodeSettings
from adapters.model_folder import quantised
from engine.domain.cost import Prediction, Usage
from engine.domain.stage import ModelRef
from engine.domain.sweep import Decoding
from engine.ports import Context, FirstJob, FirstSettings, Fit, Generated, GenerateTask, Workload

EARLY = 0.3
"""The least share of the expected decoding steps: all answers of a batch may end early, but one long answer holds it."""

MEAN_SHARE = 0.7
"""Mean length of answers, as a share of the longest in their batch."""

SPREAD = (0.75, 1.0, 1.4)
"""The low, expected and high device-seconds of so many tokens, on a machine that was measured."""

GUESSED = (0.1, 1.0, 3.0)
"""The same where it was not."""


ENDLESS = "its chat template writes no token after an answer: nothing teaches a tuned model to end, and answers may run to `max_new_tokens`"


class TransformersGenerator:
    """Greedy or sampled decoding by transformers' `generate`, in this process and on this worker's device.

    One model and one benchmark at a time, in batches that on a CPU the task alone decides (`answers.py`): so the same task gives
    the same answers on the same machine, whatever `run.resources` says and whatever else is to do.
    """

    revision = 3
    Settings = DecodeSettings

    def start(self, job: FirstJob) -> FirstSettings:
        """Begin in float32, and with large models in bfloat16."""
        return starting.asking(job)

    def notes(self, settings: DecodeSettings, decoding: Decoding, model: ModelRef) -> Sequence[str]:
        """Say which decoding fields the model sets of its own, and whether they are applied.

        Raises:
            ValueError: They are asked for, and not every generator has them.
        """
        said = decoding_notes(model, decoding, model_defaults=settings.model_defaults, marks=settings.thoughts)
        return said if has_end(Path(model.base), model.template) else (*said, ENDLESS)

    def objection(self, settings: DecodeSettings, decoding: Decoding, model: ModelRef, longest: int) -> str | None:
        """Refuse a model whose tokenizer cannot ask it, and prompts that have more tokens than it has positions."""
        del settings, decoding
        return asking_fault(Path(model.base), longest)

    def forecast(self, settings: DecodeSettings, decoding: Decoding, workload: Workload) -> Prediction:
        """Estimate tokens and device-seconds, from what this machine takes for a model of the same shape.

        A batch decodes until its longest answer ends. Where it is not known how long a model's answers are, one of each batch is
        expected to be as long as it may be.
        """
        found, most = rates(workload, None, settings), decoding.max_new_tokens
        read = workload.tokens * decoding.samples
        expected = min(most, workload.answer or most)
        ends = []
        for steps, spread in zip(
            (max(1, round(EARLY * expected)), expected, most), SPREAD if found.measured else GUESSED, strict=True
        ):
            made = round(workload.items * decoding.samples * (steps if steps == most else max(1, MEAN_SHARE * steps)))
            taken = _seconds(found.ask, decoding, workload, steps)
            ends.append(Usage(prompt_tokens=read, generated_tokens=made, device_seconds=taken * spread))
        low, mid, high = ends
        return Prediction(low, mid, high, found.ask.startup, found.basis)

    def fit(self, settings: DecodeSettings, decoding: Decoding, workload: Workload) -> Fit | None:
        """Tell what a task takes of its worker's memory; None for a model that cannot be sized.

        On a CPU the cut of a task's batches is a rule, and no matter of memory; on a GPU as many prompts go together as fit. Answers
        that are sampled share a stream of random numbers: their batches are cut by the same rule everywhere, and smaller when memory
        has not sufficed.
        """
        if workload.base is None:
            return None
        folder = Path(workload.base.base)
        try:
            sizes = memory.shape(folder)
        except (OSError, ValueError):
            return None
        here = workload.machine
        kind = (
            "" if workload.base.layers else workload.base.quantise or quantised(folder)
        )  # adapters are merged into whole weights
        whole = workload.longest + decoding.max_new_tokens
        is_sampled, is_cpu = decoding.temperature > 0, here.device == "cpu"
        most = here.batch if not is_cpu else min(CPU_ROWS, max(1, CPU_TOKENS // whole))
        most = min(SAMPLED_ROWS if is_sampled else most, max(1, workload.items))
        cuts = (min(CPU_ROWS, max(1, workload.items)) if is_cpu and not is_sampled else most).bit_length() - 1
        found = Fit()
        for times in range(1 if is_cpu or is_sampled else most.bit_length()):
            rows = most >> times
            parts = memory.answering(
                settings.dtype, sizes, kind, rows * decoding.samples * whole, rows * decoding.samples, here
            )
            found = Fit(parts, 0 if is_cpu or is_sampled else rows, cuts=cuts, devices=memory.devices(here))
            if here.memory is None or found.needed <= here.memory:
                break
        return found

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


def _seconds(rates_: AskRates, decoding: Decoding, workload: Workload, answer: int) -> float:
    """Return the seconds of one task when every batch decodes `answer` tokens."""
    rows, tokens = SAMPLED_ROWS, None
    if decoding.temperature == 0:
        rows, tokens = (CPU_ROWS, CPU_TOKENS) if workload.machine.device == "cpu" else (workload.machine.batch, None)
    lengths = workload.lengths or (workload.tokens // max(1, workload.items),)
    taken = 0.0
    for part in batches(lengths, decoding.max_new_tokens, rows, tokens):
        many, longest = len(part) * decoding.samples, max(lengths[index] for index in part)
        taken += many * longest * rates_.read
        taken += answer * (rates_.step + many * (rates_.row + (longest + answer / 2) * rates_.context))
    return rates_.task + taken * workload.items / len(lengths)
