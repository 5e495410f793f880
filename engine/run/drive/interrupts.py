"""Ctrl-C, and what asks a process to end: the first time stops stages where they can go on, the second stops at once."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from engine.run.drive.progress import Observer

FIRST = (
    "stopping at the next step, from which training goes on later; what providers were asked for is waited for."
    " Ctrl-C again stops at once (finished stages are safe either way)"
)


@dataclass(slots=True)
class Interrupts:
    """Ctrl-C, counted: the first has stages stop in order, the second stops at once.

    Attributes:
        count: How many there were.
        is_put_off: Whether the second must wait a moment.
    """

    count: int = 0
    is_put_off: bool = False

    def stop(self) -> None:
        """Stop at once, if it is time."""
        if self.count > 1 and not self.is_put_off:
            raise KeyboardInterrupt

    @contextmanager
    def put_off(self) -> Iterator[None]:
        """Have the second wait for the end of the block."""
        self.is_put_off = True
        try:
            yield
        finally:
            self.is_put_off = False
        self.stop()


@contextmanager
def listening(observer: Observer) -> Iterator[Interrupts]:
    """Count interrupts while the block runs, and say at the first what it does."""
    seen = Interrupts()

    def handle(number: int, frame: FrameType | None) -> None:
        del number, frame
        seen.count += 1
        seen.stop()
        if seen.count == 1:
            observer.note(FIRST)

    previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield seen
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
