"""How tasks become answers: one model after another, by transformers' `generate`. Only workers import this: it starts torch.

On a CPU a task's batches are made of its own prompts by a fixed rule (`batches.py`), and nothing else is in them. So its
answers are the same bits whatever else a worker has to do, also after a kill, for every model and kernel.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig, StoppingCriteria, StoppingCriteriaList, set_seed

from adapters.chat import prompt_tokens
from adapters.local.batches import CPU_ROWS, CPU_TOKENS, SAMPLED_ROWS, batches, in_halves
from adapters.local.decoding import taken
from adapters.local.loaded import LoadedModel
from adapters.local.responses import Answers, generated
from engine.domain.results import Finish
from engine.domain.stage import ModelRef
from engine.ports import Context, Generated, GenerateTask, Pulse, StoppedError

Ended = tuple[str, Generated | Exception]


def answered(tasks: Sequence[GenerateTask], held: LoadedModel, context: Context, since: float) -> Iterator[Ended]:
    """Answer every task, and yield (key, answers) of each as soon as it is done; a failure is its own task's alone.

    Args:
        tasks: Tasks on one base model with the same decoding settings.
        held: The base model.
        context: The worker.
        since: When the work began, by `time.perf_counter`; what it has taken by now is shared by the tasks.

    Raises:
        StoppedError: The run is to stop; answers of the task under way are lost.
    """
    by_model: dict[ModelRef, list[GenerateTask]] = {}
    for task in tasks:
        by_model.setdefault(task.model, []).append(task)
    shared = (time.perf_counter() - since) / len(tasks)
    for weights, own in by_model.items():
        begun = time.perf_counter()
        with ExitStack() as stack:
            try:
                model = stack.enter_context(held.tuned(weights))
            except Exception as error:  # noqa: BLE001 - these weights cannot be read; others can
                yield from ((task.key, error) for task in own)
                continue
            charged = shared + (time.perf_counter() - begun) / len(own)
            for task in own:
                yield task.key, _attempt(task, model, held, context, charged)


def _attempt(
    task: GenerateTask, model: Any, held: LoadedModel, context: Context, charged: float
) -> Generated | Exception:
    """Answer one task, which is charged so many seconds of what was done for several; its failure is its result."""
    begun = time.perf_counter()
    try:
        prompts = prompt_tokens(held.tokenizer, [prompt.turns for prompt in task.prompts], task.system)
        with _decoding(model, _configured(task, held)):
            answers = _answers(task, model, held, context, prompts)
        return generated(task, prompts, answers, held.tokenizer, time.perf_counter() - begun + charged)
    except StoppedError:
        raise  # the other tasks are to stop, too
    except Exception as error:  # noqa: BLE001 - whatever it is, it is this task's failure and nobody else's
        return error


def _answers(
    task: GenerateTask, model: Any, held: LoadedModel, context: Context, prompts: Sequence[list[int]]
) -> Answers:
    decoding, ends = task.decoding, frozenset(held.ends)
    beats = _Beats(task, context.pulse)
    make: Callable[[Sequence[list[int]]], list[list[int]]] = partial(_rows, model, held.tokenizer, beats)
    rows, tokens = SAMPLED_ROWS, None
    if decoding.temperature > 0:
        set_seed(task.seed)
    elif context.device == "cpu":
        rows, tokens = CPU_ROWS, CPU_TOKENS
    else:
        rows = min(context.generate_batch, (task.fit and task.fit.rows) or context.generate_batch)
    if task.fit and task.fit.halvings:  # a worker has died of it
        rows = max(1, min(rows, len(prompts)) >> task.fit.halvings)
        tokens = tokens and tokens >> task.fit.halvings
    if decoding.temperature > 0 or context.device != "cpu":
        make = partial(in_halves, make)
    answers = {}
    for part in batches([len(prompt) for prompt in prompts], decoding.max_new_tokens, rows, tokens):
        for place, row in enumerate(make([prompts[index] for index in part])):
            number, sample = divmod(place, decoding.samples)
            answers[part[number], sample] = _until_end(row, ends)
        beats.answered += len(part) * decoding.samples
    return answers


class _Beats(StoppingCriteria):  # type: ignore[misc] # transformers' types are not followed
    """Says at every decoding step how far a task is, in tokens of answers that all have `max_new_tokens`; ends no row.

    Args:
        task: The task.
        pulse: Where to say it.

    Attributes:
        answered: Answers in the batches that have ended.
        read: Tokens that every row of the batch under way began with.
    """

    def __init__(self, task: GenerateTask, pulse: Pulse) -> None:
        """Begin with nothing done."""
        self._key, self._most, self._pulse = task.key, task.decoding.max_new_tokens, pulse
        self._of = len(task.prompts) * task.decoding.samples * self._most
        self.answered = self.read = 0

    def __call__(self, input_ids: torch.Tensor, scores: object, **_: object) -> torch.Tensor:
        """Say it after a step, with long[rows, tokens]; return for each row, bool[rows], not to end it."""
        del scores
        rows, tokens = input_ids.shape
        self._pulse.beat(self._key, self.answered * self._most + rows * (tokens - self.read), self._of)
        return torch.zeros(rows, dtype=torch.bool, device=input_ids.device)


def _configured(task: GenerateTask, held: LoadedModel) -> GenerationConfig:
    """Return the whole of how to decode: the recipe's, and of the model's own what the task asks for."""
    decoding, base = task.decoding, Path(task.model.base)
    extra = taken(base, decoding, model_defaults=task.settings.model_defaults)
    if decoding.temperature > 0:
        extra = {"temperature": decoding.temperature, "top_p": decoding.top_p, "top_k": 0} | extra
    return GenerationConfig(
        max_new_tokens=decoding.max_new_tokens,
        do_sample=decoding.temperature > 0,
        num_return_sequences=decoding.samples,
        pad_token_id=held.tokenizer.pad_token_id,
        eos_token_id=held.ends or None,
        **extra,
    )


@contextmanager
def _decoding(model: Any, config: GenerationConfig) -> Iterator[None]:
    """Have a model decode in one way alone while the block runs: `generate` fills gaps in what it is given from the model's own."""
    own, model.generation_config = model.generation_config, config
    try:
        yield
    finally:
        model.generation_config = own


def _rows(model: Any, tokenizer: Any, beats: _Beats, prompts: Sequence[list[int]]) -> list[list[int]]:
    """Return the generated token ids, padding included: `samples` rows for each prompt."""
    padded = tokenizer.pad({"input_ids": list(prompts)}, padding=True, return_tensors="pt").to(model.device)
    beats.read = padded["input_ids"].shape[1]
    with torch.inference_mode():
        made = model.generate(
            **padded, generation_config=model.generation_config, stopping_criteria=StoppingCriteriaList([beats])
        )
    rows: list[list[int]] = made[:, beats.read :].tolist()
    return rows


def _until_end(row: list[int], ends: frozenset[int]) -> tuple[list[int], Finish]:
    """Cut a row after its first end token."""
    for position, token in enumerate(row):
        if token in ends:
            return row[: position + 1], Finish.STOP
    return row, Finish.LENGTH
