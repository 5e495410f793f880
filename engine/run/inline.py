"""One host in this very process: for debugging, for machines without Ray, and for tests. A product, not a mock."""

from __future__ import annotations

from engine.domain.results import Attempt
from engine.run.hosts import Host, HostLost
from engine.run.worker import HostSettings, StageTask

NAME = "inline"


class InlineExecutor:
    """Runs each task when it is polled for.

    Args:
        settings: What the host is made from.
    """

    def __init__(self, settings: HostSettings) -> None:
        """Make the one host."""
        self._host = Host(NAME, settings)
        self._waiting: StageTask | None = None

    @property
    def hosts(self) -> tuple[str, ...]:
        """The one host."""
        return (NAME,)

    def submit(self, host: str, task: StageTask) -> None:
        """Remember the task until the next poll."""
        if host != NAME or self._waiting is not None:
            message = f"host {host} is not idle"
            raise ValueError(message)
        self._waiting = task

    def poll(self, timeout: float) -> list[Attempt | HostLost]:
        """Run the task that waits, however long it takes."""
        del timeout
        if self._waiting is None:
            return []
        task, self._waiting = self._waiting, None
        return [self._host.run(task)]

    def close(self) -> None:
        """Nothing outlives this process."""
