"""Which prompts of a task are answered in one batch, and what becomes of a batch that memory does not hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

SAMPLED_ROWS = 32
"""Prompts of a batch whose answers are sampled: they share one stream of random numbers, so its size is a constant."""

CPU_ROWS = 128
"""Most prompts of a batch on a CPU."""

CPU_TOKENS = 8192
"""Most tokens of a batch on a CPU, prompts with their padding and answers: 0.4 GB of keys and values for a model of 135 M
weights. More prompts than fill it do not make a core quicker."""


def batches(lengths: Sequence[int], answer: int, rows: int, tokens: int | None = None) -> Iterator[list[int]]:
    """Yield the numbers of the prompts of each batch: the longest prompts first, so that little is padded.

    A batch depends on the arguments alone. On a CPU these are a task's own and constants, and so are the bits of its answers:
    matrix products there round by the number of their rows.

    Args:
        lengths: Tokens of each prompt.
        answer: Longest answer, in tokens.
        rows: Most prompts of a batch, >= 1.
        tokens: Most tokens of a batch, unless one prompt alone has more; None for no limit.
    """
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    while order:
        fits = rows if tokens is None else max(1, tokens // (lengths[order[0]] + answer))
        yield order[: min(rows, fits)]
        order = order[min(rows, fits) :]


def out_of_memory(error: BaseException) -> bool:
    """Tell whether an error says that memory does not suffice, on a GPU or on a CPU."""
    import torch

    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    words = ("not enough memory", "can't allocate memory")
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)


def in_halves(work: Callable[[Sequence[T]], list[R]], items: Sequence[T]) -> list[R]:
    """Return `work(items)`; where memory does not suffice for all at once, what it makes of one half and of the other.

    Raises:
        RuntimeError: When memory does not suffice for one item alone; so does MemoryError.
    """
    try:
        return work(items)
    except (RuntimeError, MemoryError) as error:
        if len(items) == 1 or not out_of_memory(error):
            raise
    import torch

    # Outside of the handler: the error's frames hold the memory.
    torch.cuda.empty_cache()
    middle = len(items) // 2
    return in_halves(work, items[:middle]) + in_halves(work, items[middle:])
