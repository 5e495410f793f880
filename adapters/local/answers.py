"""How tasks become answers: one model after another, by transformers' `generate`. Only workers import this: it starts torch.

On a CPU a task's batches are made of its own prompts by a fixed rule (`batches.py`), and nothing else is in them. So its
answers are the same bits whatever else a worker has to do, also after a kill, for every model and kernel.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch
from transformers import set_seed

from adapters.local.batches import CPU_ROWS, CPU_TOKENS, SAMPLED_ROWS, batches
from adapters.local.loaded import LoadedModel
from adapters.local.memory import in_halves
from adapters.local.responses import generated, rendered
from engine.domain.conversation import Turn
from engine.domain.results import Finish
from engine.domain.stage import ModelRef
from engine.ports import Context, Generated, GenerateTask

Ended = tuple[str, Generated | Exception]
Render = Callable[[tuple[tuple[Turn, ...], ...], str | None], list[list[int]]]


def answered(tasks: Sequence[GenerateTask], held: LoadedModel, context: Context, since: float) -> Iterator[Ended]:
    """Answer every task, and yield (key, answers) of each as soon as it is done; a failure is its own task's alone.

    Args:
        tasks: Tasks on one base model with the same decoding settings.
        held: The base model.
        context: The worker.
        since: When the work began, by `time.perf_counter`; what it has taken by now is shared by the tasks.
    """
    by_model: dict[ModelRef, list[GenerateTask]] = {}
    for task in tasks:
        by_model.setdefault(task.model, []).append(task)
    render: Render = cache(partial(rendered, held.tokenizer))  # the models of a sweep are asked the same
    answering = _Answering(held, context, render)
    shared = (time.perf_counter() - since) / len(tasks)
    for weights, own in by_model.items():
        yield from answering.by_one_model(weights, own, shared)


@dataclass(frozen=True, slots=True)
class _Answering:
    """What all tasks need.

    Attributes:
        held: The base model.
        context: The worker.
        render: Returns the token ids of prompts, given a system prompt.
    """

    held: LoadedModel
    context: Context
    render: Render

    def by_one_model(self, weights: ModelRef, tasks: Sequence[GenerateTask], shared: float) -> Iterator[Ended]:
        """Answer the tasks of one model, each of which is charged `shared` seconds of what was done for several."""
        begun = time.perf_counter()
        with ExitStack() as stack:
            try:
                model = stack.enter_context(self.held.tuned(weights))
            except Exception as error:  # noqa: BLE001 - these weights cannot be read; others can
                yield from ((task.key, error) for task in tasks)
                return
            shared += (time.perf_counter() - begun) / len(tasks)
            for task in tasks:
                yield task.key, self._attempt(task, model, shared)

    def _attempt(self, task: GenerateTask, model: Any, shared: float) -> Generated | Exception:
        """Answer one task; its failure is its result."""
        begun = time.perf_counter()
        try:
            prompts = self.render(tuple(prompt.turns for prompt in task.prompts), task.system)
            answers = self._answers(task, model, prompts)
            seconds = time.perf_counter() - begun + shared
            return generated(task, prompts, answers, self.held.tokenizer, seconds)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is this task's failure and nobody else's
            return error

    def _answers(
        self, task: GenerateTask, model: Any, prompts: Sequence[list[int]]
    ) -> dict[tuple[int, int], tuple[list[int], Finish]]:
        decoding, ends = task.decoding, _end_tokens(model, self.held.tokenizer)
        rows = partial(_rows, model, self.held.tokenizer, task)
        lengths, limit = [len(prompt) for prompt in prompts], decoding.max_new_tokens
        if decoding.temperature > 0:
            set_seed(task.seed)
            parts, make = batches(lengths, limit, SAMPLED_ROWS), rows
        elif self.context.device == "cpu":
            parts, make = batches(lengths, limit, CPU_ROWS, CPU_TOKENS), rows
        else:
            parts, make = batches(lengths, limit, self.context.generate_batch), partial(in_halves, rows)
        answers = {}
        for part in parts:
            for place, row in enumerate(make([prompts[index] for index in part])):
                number, sample = divmod(place, decoding.samples)
                answers[part[number], sample] = _until_end(row, ends)
        return answers


def _rows(model: Any, tokenizer: Any, task: GenerateTask, prompts: Sequence[list[int]]) -> list[list[int]]:
    """Return the generated token ids, padding included: `samples` rows for each prompt."""
    decoding = task.decoding
    padded = tokenizer.pad({"input_ids": list(prompts)}, padding=True, return_tensors="pt").to(model.device)
    sampling = decoding.temperature > 0
    extra = {"temperature": decoding.temperature, "top_p": decoding.top_p, "top_k": 0} if sampling else {}
    with torch.inference_mode():
        made = model.generate(
            **padded,
            max_new_tokens=decoding.max_new_tokens,
            do_sample=sampling,
            num_return_sequences=decoding.samples,
            pad_token_id=tokenizer.pad_token_id,
            **extra,
        )
    rows: list[list[int]] = made[:, padded["input_ids"].shape[1] :].tolist()
    return rows


def _end_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    """Return the tokens at which `generate` stops a row."""
    declared = model.generation_config.eos_token_id
    several = declared if isinstance(declared, list) else [declared, tokenizer.eos_token_id]
    return frozenset(token for token in several if token is not None)


def _until_end(row: list[int], ends: frozenset[int]) -> tuple[list[int], Finish]:
    """Cut a row after its first end token."""
    for position, token in enumerate(row):
        if token in ends:
            return row[: position + 1], Finish.STOP
    return row, Finish.LENGTH
