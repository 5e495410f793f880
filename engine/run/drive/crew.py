"""The executor's coming and going, beside other work: starting Ray and its hosts takes seconds, and so does stopping them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

from engine.run.executors.hosts import Executor


class Crew:
    """Makes an executor in the background, and closes it there. A context manager: on leaving, it is closed.

    Args:
        make: Makes the executor.
    """

    def __init__(self, make: Callable[[], Executor]) -> None:
        """Do nothing yet."""
        self._make = make
        self._background = ThreadPoolExecutor(1, "crew")
        self._coming: Future[Executor] | None = None
        self._going: Future[None] | None = None

    def call(self) -> Future[Executor]:
        """Begin to make the executor."""
        if self._coming is None:
            self._coming = self._background.submit(self._make)
        return self._coming

    def executor(self) -> Executor:
        """Return the executor, once it is there.

        Raises:
            RunError: No host fits this machine.
        """
        return self.call().result()

    def dismiss(self) -> None:
        """Begin to close the executor, if it was called."""
        if self._coming is not None and self._going is None:
            self._going = self._background.submit(self._close, self._coming)

    @staticmethod
    def _close(coming: Future[Executor]) -> None:
        if coming.exception() is None:
            coming.result().close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.dismiss()
        self._background.shutdown()
        if self._going is not None and kind is None:
            self._going.result()
