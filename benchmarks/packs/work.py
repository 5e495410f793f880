"""The cells of the benchmark, and the adapters called as the engine calls them, without Ray."""

from __future__ import annotations

import random
import resource
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TypeVar

import torch

from engine import registry
from engine.domain.adapters import Kind
from engine.domain.conversation import ChatRow, Prompt
from engine.domain.stage import ModelRef
from engine.domain.sweep import GenerateRecipe, TuneRecipe
from engine.ports import Context, Cut, Generated, GenerateTask, Trajectory, Tuned
from packs.model import settle

T = TypeVar("T")

SIZES = (10, 25, 50, 100)
"""Examples of a cell; the cells take them in turn."""

LRS = (5e-5, 1e-4, 2e-4)


@dataclass(slots=True)
class Timed:
    """What a piece of work took: wall seconds, and the peak of the device's memory in GB (10^9 bytes)."""

    seconds: float = 0.0
    memory_gb: float = 0.0


@contextmanager
def timed(device: str) -> Iterator[Timed]:
    """Time what happens inside, from an idle device to an idle device.

    On a GPU the memory is the most that torch allocated inside; on a CPU, the process's largest so far.
    """
    found = Timed()
    settle(device)
    if device != "cpu":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    begun = time.perf_counter()
    yield found
    settle(device)
    found.seconds = time.perf_counter() - begun
    on_gpu = device != "cpu"
    found.memory_gb = (
        torch.cuda.max_memory_allocated() if on_gpu else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    ) / 1e9


def trajectories(base: ModelRef, settings: TuneRecipe, members: int, words: int, folder: Path) -> list[Trajectory]:
    """Return so many training runs that differ in data, number of examples, learning rate and seed.

    Args:
        base: The base model.
        settings: How to tune; the learning rate is replaced.
        members: How many, >= 1.
        words: About how many words a row has, >= 2.
        folder: Where the adapters go, one folder each; a new folder.
    """
    found = []
    for member in range(members):
        key = f"tune-{settings.backend}-{member}"
        cut = Cut(key, settings.model_copy(update={"lr": LRS[member % len(LRS)]}), folder / key)
        cut.folder.mkdir(parents=True)
        rows = _rows(SIZES[member % len(SIZES)], words, member)
        found.append(Trajectory(base, rows, member, (cut,), folder / f"state-{key}"))
    return found


def _rows(n: int, words: int, seed: int) -> list[ChatRow]:
    """Made-up rows of about so many words, half asked and half answered, from the stand-in's chores."""
    pool = registry.adapter(Kind.DATA, "standin/chores").rows("")
    draw = random.Random(seed)  # noqa: S311 - no secret
    return [
        ChatRow(
            str(number),
            _words((row.user for row in iter(lambda: draw.choice(pool), None)), words // 2),
            _words((row.assistant for row in iter(lambda: draw.choice(pool), None)), words // 2),
        )
        for number in range(n)
    ]


def _words(texts: Iterable[str], number: int) -> str:
    return " ".join(islice((word for text in texts for word in text.split()), number))


def tune(runs: Sequence[Trajectory], context: Context) -> dict[str, Tuned]:
    """Tune all runs, in one call, and return what each left.

    Raises:
        Exception: What a run failed with.
    """
    return dict(_made(registry.adapter(Kind.TUNER, "local/sft").fine_tune(runs, context)))


def tasks(runs: Sequence[Trajectory], prompts: int, settings: GenerateRecipe) -> list[GenerateTask]:
    """Return one task for each tuned adapter: the same prompts, drawn evenly from the policy benchmark."""
    every = registry.adapter(Kind.BENCHMARK, "standin/policy").prompts("")
    asked: list[Prompt] = [every[number * len(every) // prompts] for number in range(min(prompts, len(every)))]
    return [
        GenerateTask(
            key=f"generate-{run.cuts[-1].key}",
            model=replace(run.model, tuned=str(run.cuts[-1].folder)),
            prompts=asked,
            system=None,
            settings=settings,
            seed=0,
        )
        for run in runs
    ]


def answer(batches: Iterable[Sequence[GenerateTask]], context: Context) -> dict[str, Generated]:
    """Answer the tasks, those of a batch in one call, and return the answers by key.

    Raises:
        Exception: What a task failed with.
    """
    generator = registry.adapter(Kind.GENERATOR, "local/transformers")
    return {key: made for batch in batches for key, made in _made(generator.generate(batch, context))}


def _made(results: Iterable[tuple[str, T | Exception]]) -> Iterator[tuple[str, T]]:
    for key, made in results:
        if isinstance(made, Exception):
            raise made
        yield key, made
