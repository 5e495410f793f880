"""Which rows decode together: as many adapters as memory holds, and half as many when it did not hold them after all."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from adapters.local.decoding import llama
from adapters.local.decoding.decode import Batch, passes
from adapters.local.decoding.questions import Answer, Question, Rules
from adapters.local.lora import Adapter
from adapters.local.memory import keep_freed_memory, out_of_memory

IN_REACH = 96 * 2**20
"""Most bytes of keys and values on a CPU: rows enough that a step is worth its calls, and no more than caches bear."""

COPIES = 96 * 2**20
"""Most bytes of members' own copies of the weights, where passes make them (`llama.py`): each step reads them all."""

FREE_SHARE = 0.5
"""Share of a GPU's free memory for keys and values; activations, and the copies made in growing, need the rest."""

NEUTRAL: dict[str, tuple[Any, ...]] = {
    "num_beams": (None, 1),
    "repetition_penalty": (None, 1.0),
    "no_repeat_ngram_size": (None, 0),
    "bad_words_ids": (None,),
    "sequence_bias": (None,),
    "min_length": (None, 0),
    "min_new_tokens": (None, 0),
    "suppress_tokens": (None, []),
    "begin_suppress_tokens": (None, []),
    "forced_bos_token_id": (None,),
    "forced_eos_token_id": (None,),
    "exponential_decay_length_penalty": (None,),
    "guidance_scale": (None, 1.0),
    "penalty_alpha": (None, 0.0),
    "dola_layers": (None,),
    "watermarking_config": (None,),
}
"""Settings of a model's generation config that bear on greedy answers, and the values with which they do not."""

TRIAL = ((3, 1, 4, 1, 5, 9, 2, 6), (2, 7, 1), (3, 1, 4, 8, 8), (1, 4))
"""Rows of tokens for the trial, of unequal lengths; two begin alike."""

AGREES = 0.05
"""Largest difference between logits, as a share of the largest, with which two ways of computing are one (bfloat16)."""

AGREES_WRITTEN_OUT = 1e-4
"""The same for passes that are written out, which differ by float32's rounding alone: on the stand-in by 7e-7, on models of
random weights by up to 9e-6."""


@dataclass(slots=True)
class Member:
    """One adapter that answers.

    Attributes:
        adapter: Its weights; None for the model as it is.
        questions: What it has yet to answer, the longest first.
    """

    adapter: Adapter | None
    questions: list[Question] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Failed:
    """Rows that even the smallest batch had no memory for, and why."""

    questions: Sequence[Question]
    error: Exception


@dataclass(frozen=True, slots=True)
class Footprint:
    """What decoding a model here takes.

    Attributes:
        bytes: Memory of the keys and values of one token of one row.
        longest: Longest row, prompt and answer, that can be decoded here; beyond it the model no longer sees all.
        by_modules: Whether transformers' modules must compute, because passes that are written out for such a model make
            something else than it does.
    """

    bytes: int
    longest: float
    by_modules: bool = False


def footprint(model: Any) -> Footprint | None:
    """Try out whether `Batch` computes with this model what the model computes alone, and measure what that takes.

    Returns:
        None where rows cannot decode as `Batch` has it: settings of the model's own that change greedy answers, positions
        that depend on the longest row, or a model that keeps something else than keys and values.
    """
    config = model.config.get_text_config()
    declared = model.generation_config
    plain = all(getattr(declared, name, values[0]) in values for name, values in NEUTRAL.items())
    rope = str(getattr(config, "rope_parameters", None))  # one set of parameters, or one for each kind of layer
    if not plain or "dynamic" in rope or "longrope" in rope:
        return None
    longest = getattr(config, "sliding_window", None) or float("inf")
    for by_modules in (False, True) if llama.takes(model, ()) else (False,):
        taken = _tried_out(model, by_modules=by_modules)
        if taken is not None:
            return Footprint(taken, longest, by_modules)
    return None


def _tried_out(model: Any, *, by_modules: bool) -> int | None:
    """Return the bytes of a row's token, or None when the logits are not the model's own."""
    try:
        return _compared(model, by_modules=by_modules)
    except (TypeError, ValueError, AttributeError, RuntimeError):
        return None  # it takes no positions, masks or caches of ours, or is not built as our code has it


@torch.inference_mode()
def _compared(model: Any, *, by_modules: bool) -> int | None:
    computed = passes(model, None, 0, by_modules=by_modules)
    ends = [len(row) - 1 for row in TRIAL]
    tokens, positions = torch.tensor([[row[-1] for row in TRIAL], ends], device=model.device)
    with computed.attached():
        computed.read([Question("", index, row) for index, row in enumerate(TRIAL)], len(TRIAL))
        found = computed.step(tokens, positions, max(ends))
    most = AGREES_WRITTEN_OUT if isinstance(computed, llama.LlamaPasses) else AGREES
    for row, logits in zip(TRIAL, found, strict=True):
        own = model(input_ids=torch.tensor([row], device=model.device), use_cache=False).logits[0, -1]
        if not (own - logits).abs().max() <= most * own.abs().max():  # also when one is not a number
            return None
    return computed.token_bytes


def answers(
    model: Any, members: Sequence[Member], rules: Rules, taken: Footprint, rows: int
) -> Iterator[list[Answer] | Failed]:
    """Answer every question, as many members at a time as memory holds, and yield what has ended as it ends.

    Args:
        model: The base model.
        members: Who answers: adapters on the same modules, or one that is the model itself.
        rules: How to decode.
        taken: The model's footprint.
        rows: Most rows of one member in a batch, >= 1.
    """
    waiting = [member for member in members if member.questions]
    longest = max((len(member.questions[0].tokens) for member in waiting), default=0)
    width, rows = _fitting(model.device, taken.bytes * (longest + rules.limit), rows)
    if model.device.type == "cpu":
        keep_freed_memory()
        width = max(1, min(width, COPIES // _copied(model, waiting, rules)))
    while waiting:
        chosen = waiting[:width]
        try:
            yield from _batch(model, chosen, rules, rows)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is these rows' failure and nobody else's
            if not out_of_memory(error) or (len(chosen) == 1 and rows == 1):
                yield _given_up(chosen, error)
            elif len(chosen) > 1:
                width = len(chosen) // 2
            else:
                rows = min(rows, len(chosen[0].questions)) // 2 or 1
        waiting = [member for member in waiting if member.questions]


def _fitting(device: Any, row: int, rows: int) -> tuple[int, int]:
    """Return how many members and how many rows of each may decode together, when a row takes `row` bytes."""
    if device.type == "cpu":
        return max(1, IN_REACH // (row * rows)), rows
    fit = int(FREE_SHARE * torch.cuda.mem_get_info(device)[0]) // row
    return max(1, fit // rows), max(1, min(rows, fit))


def _copied(model: Any, members: Sequence[Member], rules: Rules) -> int:
    """Return the bytes of weights that each member has of its own, if the passes copy weights; else 1."""
    adapter = next((member.adapter for member in members), None)
    if adapter is None or rules.by_modules or not llama.takes(model, adapter.a):
        return 1
    return llama.copied(model)


def _batch(model: Any, members: Sequence[Member], rules: Rules, rows: int) -> Iterator[list[Answer]]:
    """Answer each member's next questions, in blocks as equal as can be."""
    most = max(len(member.questions) for member in members)
    rows = math.ceil(most / math.ceil(most / rows))
    adapters = [member.adapter for member in members if member.adapter is not None]
    batch = Batch(model, adapters or None, [member.questions[:rows] for member in members], rules)
    while not batch.done:
        ended = batch.advance()
        answered = {(answer.question.task, answer.question.index) for answer in ended}
        for member in members:
            member.questions = [one for one in member.questions if (one.task, one.index) not in answered]
        yield ended


def _given_up(members: Sequence[Member], error: Exception) -> Failed:
    failed = Failed([question for member in members for question in member.questions], error)
    for member in members:
        member.questions = []
    return failed
