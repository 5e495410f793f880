"""How far the running stages of a worker are, and that they are to stop: what stages say and hear while they run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from engine.ports import StoppedError


def _nothing() -> None:
    """Do nothing."""


class WorkerPulse:
    """The pulse of one worker, which other threads of its process may look at. Implements `engine.ports.context.Pulse`.

    Args:
        heard: Called at every beat, in the stage's thread.
    """

    def __init__(self, heard: Callable[[], None] = _nothing) -> None:
        """Let stages go on."""
        self._heard = heard
        self._shares: dict[str, float] = {}
        self._is_stopping = False

    def beat(self, key: str, done: float, of: float) -> None:
        """Note how far a stage is.

        Raises:
            StoppedError: The run is to stop.
        """
        self._shares[key] = min(1.0, done / of)
        self._heard()
        if self._is_stopping:
            raise StoppedError("the run was to stop")

    def stop(self) -> None:
        """Have every stage stop at its next beat."""
        self._is_stopping = True

    def progress(self) -> Mapping[str, float]:
        """Return how much of each stage is done, 0 to 1, by key, of those that said so."""
        return self._shares.copy()

    def forget(self, keys: Iterable[str]) -> None:
        """Note that stages do not run any more."""
        for key in keys:
            self._shares.pop(key, None)
