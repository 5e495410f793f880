"""What a worker has to compute with, as planning sees it: adapters size their work by it before anything starts."""

from __future__ import annotations

from dataclasses import dataclass, replace


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
        batch: Prompts that are decoded together on a GPU, >= 1.
    """

    device: str = "cpu"
    threads: int = 1
    devices: float = 0.0
    workers: int = 1
    memory: int | None = None
    batch: int = 128

    @property
    def alone(self) -> Machine:
        """The same worker with none beside it: it has all of the main memory; what a worker has of GPUs is its own anyhow."""
        if self.device != "cpu" or self.memory is None:
            return self
        return replace(self, workers=1, memory=self.memory * self.workers)


@dataclass(frozen=True, slots=True)
class Fit:
    """What a stage takes of its worker's memory, and how it is to be cut so that it fits.

    Attributes:
        parts: (what for, bytes), the model first.
        rows: Rows or prompts that go through the model at once; 0 for as many as the adapter likes.
        is_checkpointed: Whether activations are computed again instead of kept.
        halvings: How often it is to be halved: once for every worker that has died of it.
        cuts: How often halving makes it smaller: a stage that kills its worker after that has failed.
        remedies: Where it does not fit: what would make it fit, each by itself, in a spec's words.
        devices: GPUs that the model is spread over, >= 1; `parts` are what it takes of all of them together.
    """

    parts: tuple[tuple[str, int], ...] = ()
    rows: int = 0
    is_checkpointed: bool = False
    halvings: int = 0
    cuts: int = 0
    remedies: tuple[str, ...] = ()
    devices: int = 1

    @property
    def needed(self) -> int:
        """Bytes in all."""
        return sum(size for _, size in self.parts)
