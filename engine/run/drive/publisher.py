"""Republishes results.duckdb while the run goes on, in a thread, and never for more than a small share of the time."""

from __future__ import annotations

import threading
import time

from engine.store.layout import RunDirectory
from engine.store.publish import publish

SECONDS_BETWEEN = 10.0
SHARE = 0.05
"""Publishing takes at most about this share of the run."""


class Publisher:
    """Publishes every now and then."""

    def __init__(self, run: RunDirectory) -> None:
        """Wait a while before the first time."""
        self._run = run
        self._due = time.monotonic() + SECONDS_BETWEEN
        self._thread: threading.Thread | None = None
        self._trouble = ""

    def tick(self) -> str:
        """Start to publish if it is time; return what went wrong the last time, or ''.

        What is published can be made again at any time, so trouble with it never stops a run.
        """
        trouble, self._trouble = self._trouble, ""
        if time.monotonic() < self._due or (self._thread is not None and self._thread.is_alive()):
            return trouble
        self._thread = threading.Thread(target=self._publish, name="publisher", daemon=True)
        self._thread.start()
        return trouble

    def hasten(self) -> None:
        """Publish at the next tick: there is something to see for the first time."""
        self._due = min(self._due, time.monotonic())

    def join(self) -> None:
        """Wait for a publication under way."""
        if self._thread is not None:
            self._thread.join()

    def _publish(self) -> None:
        taken = 0.0
        try:
            taken = publish(self._run)
        except Exception as error:  # noqa: BLE001 - told by the next tick, in the driver's own thread
            self._trouble = f"{type(error).__name__}: {error}"
        self._due = time.monotonic() + max(SECONDS_BETWEEN, taken / SHARE)
