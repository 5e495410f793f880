"""What running out of memory looks like, and how to have memory back quickly. Only hosts import this: it starts torch."""

from __future__ import annotations

import ctypes

import torch


def out_of_memory(error: BaseException) -> bool:
    """Tell whether an error says that memory does not suffice, on a GPU or on a CPU."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    words = ("not enough memory", "can't allocate memory")
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)


def keep_freed_memory() -> None:
    """Have glibc keep freed memory for the next tensors, where the process has glibc.

    By default it gives large blocks back and gets them again zeroed, page by page: a tenth of a training step on a CPU.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        trim, by_mmap = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h
        mallopt(trim, 2**31 - 1)
        _ = mallopt(by_mmap, 2**30) or mallopt(by_mmap, 2**25)  # older versions refuse more than 32 MiB
