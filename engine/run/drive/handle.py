"""An executor that comes and goes in the background: starting Ray and its workers takes seconds, and so does stopping them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Self

from engine.run.executors.workers import Executor

PATIENCE_SECONDS = 5.0
"""How long an interrupted run waits for an executor that is just being made; a cluster may take minutes to answer."""


class ExecutorHandle:
    """Makes an executor in the background, and closes it there. A context manager: on leaving, it is closed."""

    def __init__(self, make: Callable[[], Executor]) -> None:
        """Do nothing yet."""
        self._make = make
        self._starting: Future[Executor] | None = None
        self._stopping: Future[None] = Future()
        self._leave = threading.Event()
        self._is_given_up = False
        self._background: threading.Thread | None = None

    def start(self) -> Future[Executor]:
        """Begin to make the executor, unless that has begun."""
        if self._starting is None:
            self._starting = Future()
            # One thread for all of an executor's life: what Ray starts here ends with the thread that began it. And a
            # daemon, so that a process may end while it waits for a cluster.
            self._background = threading.Thread(target=self._live, args=[self._starting], name="executor", daemon=True)
            self._background.start()
        return self._starting

    def stop(self) -> None:
        """Begin to close the executor, if it was started."""
        self._leave.set()

    def give_up(self) -> None:
        """Do not wait for an executor that is still being made; whenever it comes, it is closed."""
        self._is_given_up = True

    def _live(self, starting: Future[Executor]) -> None:
        try:
            executor = self._make()
        except BaseException as error:  # noqa: BLE001 - told by whoever waits for it
            starting.set_exception(error)
            self._stopping.set_result(None)
            return
        starting.set_result(executor)
        self._leave.wait()
        try:
            executor.close()
        except BaseException as error:  # noqa: BLE001 - the same
            self._stopping.set_exception(error)
        else:
            self._stopping.set_result(None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        self.stop()
        if self._starting is None or self._background is None:
            return
        is_given_up = (self._is_given_up or kind is KeyboardInterrupt) and not self._starting.done()
        self._background.join(PATIENCE_SECONDS if is_given_up else None)
        if kind is None and self._stopping.done():
            self._stopping.result()
