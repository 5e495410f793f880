"""How tasks become answers: greedy ones of many adapters together, all others one task at a time. Only hosts import this."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from functools import cache, partial
from typing import Any

import torch
from transformers import set_seed

from adapters.local.decoding import groups
from adapters.local.decoding.groups import Failed, Footprint, Member
from adapters.local.decoding.questions import Answer, Question, Rules, shared_tokens
from adapters.local.generate import SAMPLED_BATCH
from adapters.local.loaded import LoadedModel, quiet
from adapters.local.sheet import Sheet, reader, rendered
from engine.domain.results import Finish
from engine.domain.stage import ModelRef
from engine.ports import Context, Generated, GenerateTask

Ended = tuple[str, Generated | Exception]


def answered(tasks: Sequence[GenerateTask], held: LoadedModel, context: Context, since: float) -> Iterator[Ended]:
    """Answer every task, and yield (key, answers) of each as soon as it is done.

    Args:
        tasks: Tasks on one base model with the same decoding settings.
        held: The base model.
        context: The host.
        since: When the work began, by `time.perf_counter`; what it has taken by now is shared by the tasks.
    """
    sheets: list[Sheet] = []
    render = cache(partial(rendered, held.tokenizer))  # the adapters of a sweep are asked the same
    for task in tasks:
        try:
            sheets.append(Sheet(task, render(tuple(prompt.text for prompt in task.prompts), task.system)))
        except Exception as error:  # noqa: BLE001 - whatever it is, it is this task's failure and nobody else's
            yield task.key, error
    footprint = _footprint(held, tasks[0], context)
    room = 0 if footprint is None else footprint.longest
    _share(time.perf_counter() - since, sheets)
    for sheet in sheets:
        if sheet.longest > room:
            yield _alone(sheet, held, context)
    if footprint is not None:
        yield from _Crowd(held, footprint, context).answered([sheet for sheet in sheets if sheet.longest <= room])


def _footprint(held: LoadedModel, task: GenerateTask, context: Context) -> Footprint | None:
    """Return what greedy decoding takes, measured once a host; None where tasks are answered one at a time."""
    if task.settings.temperature > 0:
        return None
    key = f"{task.model.base} {task.settings.dtype} {context.device}"
    bare = ModelRef(held.folder)  # an adapter that was tuned last may still be on the base
    return context.warm.get("footprint", key, lambda: groups.footprint(held.to_ask(bare)))


def _share(seconds: float, sheets: Sequence[Sheet]) -> None:
    """Spread time over tasks, by their prompts."""
    prompts = sum(len(sheet.prompts) for sheet in sheets)
    for sheet in sheets:
        sheet.seconds += seconds * len(sheet.prompts) / max(1, prompts)


class _Crowd:
    """Greedy tasks that are answered together.

    Args:
        held: The base model.
        footprint: What decoding it takes.
        context: The host.
    """

    def __init__(self, held: LoadedModel, footprint: Footprint, context: Context) -> None:
        """Keep what all need."""
        self._held, self._footprint, self._context = held, footprint, context
        self._open: dict[str, Sheet] = {}
        self._read = reader(held.tokenizer)

    def answered(self, sheets: Sequence[Sheet]) -> Iterator[Ended]:
        """Answer every task: fully tuned models one by one, then adapters on the same modules together."""
        self._open = {sheet.task.key: sheet for sheet in sheets}
        by_weights: dict[ModelRef, list[Sheet]] = {}
        for sheet in sheets:
            by_weights.setdefault(sheet.task.model, []).append(sheet)
        members: dict[frozenset[str], list[Member]] = {}
        for weights, own in by_weights.items():
            try:
                adapter = self._held.adapter(weights)
            except Exception as error:  # noqa: BLE001 - these weights cannot be read; others can
                yield from self._failed(own, error)
                continue
            if adapter is None and weights.tuned is not None:
                yield from self._whole(weights, own)
            else:
                modules = frozenset[str]() if adapter is None else frozenset(adapter.a)
                members.setdefault(modules, []).append(Member(adapter, _longest_first(own)))
        base = self._held.to_ask(ModelRef(self._held.folder))
        for together in members.values():
            yield from self._decoded(base, sorted(together, key=_rank))

    def _whole(self, weights: ModelRef, own: Sequence[Sheet]) -> Iterator[Ended]:
        """Answer tasks of weights that are no plain adapter."""
        try:
            model = self._held.to_ask(weights)
        except Exception as error:  # noqa: BLE001 - these weights cannot be loaded; others can
            yield from self._failed(own, error)
            return
        if hasattr(model, "get_base_model"):  # PEFT's: its layers are its own affair
            for sheet in own:
                yield _alone(sheet, self._held, self._context)
        else:
            yield from self._decoded(model, [Member(None, _longest_first(own))])

    def _decoded(self, model: Any, members: Sequence[Member]) -> Iterator[Ended]:
        settings = next(iter(self._open.values())).task.settings
        tokenizer = self._held.tokenizer
        taken, ends = self._footprint, end_tokens(model, tokenizer)
        rules = Rules(settings.max_new_tokens, ends, tokenizer.pad_token_id, taken.by_modules)
        for event in groups.answers(model, members, rules, taken, self._context.generate_batch):
            if isinstance(event, Failed):
                failed = [self._open[key] for key in {one.task: None for one in event.questions} if key in self._open]
                yield from self._failed(failed, event.error)
            else:
                yield from self._entered(event)

    def _entered(self, answers: Iterable[Answer]) -> Iterator[Ended]:
        """Enter answers into their sheets, and yield those that they complete."""
        touched = {}
        for answer in answers:
            key = answer.question.task
            if key in self._open:  # else the task has failed already
                touched[key] = sheet = self._open[key]
                sheet.answers[answer.question.index, 0] = answer.tokens, answer.finish
                sheet.seconds += answer.seconds
        for key, sheet in touched.items():
            if sheet.complete:
                del self._open[key]
                yield key, sheet.generated(self._read)

    def _failed(self, sheets: Iterable[Sheet], error: Exception) -> Iterator[Ended]:
        for sheet in sheets:
            del self._open[sheet.task.key]
            yield sheet.task.key, error


def _longest_first(sheets: Sequence[Sheet]) -> list[Question]:
    """All their rows, so that batches waste little on padding and memory peaks at once."""
    questions = []
    for sheet in sheets:
        shared = shared_tokens(sheet.prompts)
        questions += [Question(sheet.task.key, index, prompt, shared) for index, prompt in enumerate(sheet.prompts)]
    return sorted(questions, key=lambda question: -len(question.tokens))


def _rank(member: Member) -> int:
    """Adapters of one rank side by side make the fewest products."""
    return 0 if member.adapter is None else member.adapter.rank


@quiet()
def _alone(sheet: Sheet, held: LoadedModel, context: Context) -> Ended:
    """Answer one task with transformers' own loop; its failure is its result."""
    started = time.perf_counter()
    try:
        _generate(sheet, held.to_ask(sheet.task.model), held.tokenizer, context.generate_batch)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is this task's failure and nobody else's
        return sheet.task.key, error
    sheet.seconds += time.perf_counter() - started
    return sheet.task.key, sheet.generated(reader(held.tokenizer))


def _generate(sheet: Sheet, model: Any, tokenizer: Any, size: int) -> None:
    """Fill a sheet, in batches of prompts of similar length."""
    settings, ends = sheet.task.settings, end_tokens(model, tokenizer)
    if settings.temperature > 0:
        set_seed(sheet.task.seed)
        size = SAMPLED_BATCH
    order = sorted(range(len(sheet.prompts)), key=lambda index: -len(sheet.prompts[index]))
    for start in range(0, len(order), size):
        batch = order[start : start + size]
        rows = _rows(model, tokenizer, [sheet.prompts[index] for index in batch], sheet.task)
        for place, row in enumerate(rows):
            index, sample = batch[place // settings.samples], place % settings.samples
            sheet.answers[index, sample] = _until_end(row, ends)


def _rows(model: Any, tokenizer: Any, prompts: Sequence[list[int]], task: GenerateTask) -> list[list[int]]:
    """Return the generated token ids, padding included: `samples` rows for each prompt."""
    settings = task.settings
    padded = tokenizer.pad({"input_ids": list(prompts)}, padding=True, return_tensors="pt").to(model.device)
    sampling = settings.temperature > 0
    extra = {"temperature": settings.temperature, "top_p": settings.top_p, "top_k": 0} if sampling else {}
    with torch.inference_mode():
        made = model.generate(
            **padded,
            max_new_tokens=settings.max_new_tokens,
            do_sample=sampling,
            num_return_sequences=settings.samples,
            pad_token_id=tokenizer.pad_token_id,
            **extra,
        )
    rows: list[list[int]] = made[:, padded["input_ids"].shape[1] :].tolist()
    return rows


def end_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
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
