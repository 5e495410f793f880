"""An executor that comes and goes in the background: starting Ray and its workers takes seconds, and so does stopping them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Self

from engine.run.executors.workers import Executor


class ExecutorHandle:
    """Makes an executor in the background, and closes it there. A context manager: on leaving, it is closed."""

    def __init__(self, make: Callable[[], Executor]) -> None:
        """Do nothing yet."""
        self._make = make
        self._background = ThreadPoolExecutor(1, "executor")
        self._starting: Future[Executor] | None = None
        self._stopping: Future[None] | None = None

    def start(self) -> Future[Executor]:
        """Begin to make the executor, unless that has begun."""
        if self._starting is None:
            self._starting = self._background.submit(self._make)
        return self._starting

    def stop(self) -> None:
        """Begin to close the executor, if it was started."""
        if self._starting is not None and self._stopping is None:
            self._stopping = self._background.submit(_close, self._starting)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        self.stop()
        self._background.shutdown()
        if self._stopping is not None and kind is None:
            self._stopping.result()


def _close(starting: Future[Executor]) -> None:
    if starting.exception() is None:
        starting.result().close()
