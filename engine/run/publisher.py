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
    """Publishes every now and then.

    Args:
        run: The run directory.
    """

    def __init__(self, run: RunDirectory) -> None:
        """Wait a while before the first time."""
        self._run = run
        self._due = time.monotonic() + SECONDS_BETWEEN
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None

    def tick(self) -> None:
        """Start to publish if it is time; raise what went wrong the last time."""
        if self._error is not None:
            raise self._error
        if time.monotonic() < self._due or (self._thread is not None and self._thread.is_alive()):
            return
        self._thread = threading.Thread(target=self._publish, name="publisher", daemon=True)
        self._thread.start()

    def join(self) -> None:
        """Wait for a publication under way."""
        if self._thread is not None:
            self._thread.join()

    def _publish(self) -> None:
        try:
            taken = publish(self._run)
        except Exception as error:  # noqa: BLE001 - raised again by the next tick, in the driver's own thread
            self._error = error
        else:
            self._due = time.monotonic() + max(SECONDS_BETWEEN, taken / SHARE)
