"""Hosts: processes (or objects) that run stages one after another and keep expensive things warm between them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from engine.domain.results import Attempt
from engine.run.worker import HostSettings, StageTask, attempt

T = TypeVar("T")


class WarmSlots:
    """Named slots that hold one expensive thing each. Implements `engine.ports.Warm`."""

    def __init__(self) -> None:
        """Start cold."""
        self._slots: dict[str, tuple[str, Any]] = {}

    def get(self, slot: str, key: str, make: Callable[[], T]) -> T:
        """Return what `slot` holds under `key`, or make it and keep that instead."""
        held = self._slots.get(slot)
        if held is None or held[0] != key:
            self._slots.pop(slot, None)  # free the old one before the new one takes memory
            held = (key, make())
            self._slots[slot] = held
        kept: T = held[1]
        return kept

    def drop(self, slot: str) -> None:
        """Empty a slot."""
        self._slots.pop(slot, None)


class Host:
    """Runs stages, one at a time.

    Args:
        name: Its name, for the record.
        settings: What it is made from.
    """

    def __init__(self, name: str, settings: HostSettings) -> None:
        """Start with nothing warm."""
        self._name = name
        self._settings = settings
        self._warm = WarmSlots()

    def run(self, task: StageTask) -> Attempt:
        """Run one stage; never raises for an adapter's error."""
        return attempt(task, self._name, self._settings, self._warm)


@dataclass(frozen=True, slots=True)
class HostLost:
    """A host died while it ran a stage.

    Attributes:
        host: Its name; the executor has replaced it.
        key: The stage that it was running.
        why: What is known of its end.
    """

    host: str
    key: str
    why: str


class Executor(Protocol):
    """Runs tasks on hosts. Real implementations: `InlineExecutor` and `RayExecutor`."""

    @property
    def hosts(self) -> tuple[str, ...]:
        """The hosts' names."""
        ...

    def submit(self, host: str, task: StageTask) -> None:
        """Start a task on an idle host; returns at once where the host is another process."""
        ...

    def poll(self, timeout: float) -> list[Attempt | HostLost]:
        """Return what has ended, waiting at most `timeout` seconds for the first."""
        ...

    def close(self) -> None:
        """Stop every host, now."""
        ...
