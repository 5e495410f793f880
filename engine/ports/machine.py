"""What a worker has to compute with, as planning sees it: adapters size their work by it before anything starts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Machine:
    """What one worker has.

    Attributes:
        device: Kind of its device, `cpu` or `cuda`.
        threads: CPU threads, >= 1.
        devices: GPUs, >= 0; a fraction is a share of one.
        workers: Workers at a time on one machine, this one included, >= 1.
        memory: Bytes that are free for it: its part of the machine's main memory, or of its GPUs' where it has some. None
            where that cannot be told.
    """

    device: str = "cpu"
    threads: int = 1
    devices: float = 0.0
    workers: int = 1
    memory: int | None = None
