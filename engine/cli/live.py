"""Progress on stderr: one live line on a terminal, a plain line every few seconds elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Self

from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from analysis.wording import count, duration
from engine.cli.render import console, money, safe
from engine.domain.stage import StageKind, StageState
from engine.run.drive.progress import Snapshot

PLAIN_SECONDS = 10.0


class LiveProgress:
    """Shows a run while it goes on. Implements `engine.run.drive.progress.Observer`; a context manager."""

    def __init__(self) -> None:
        """Choose the form by what stderr is."""
        self._console = console(err=True)
        self._live = Live(console=self._console, refresh_per_second=4) if sys.stderr.isatty() else None
        self._printed = 0.0

    def __enter__(self) -> Self:
        """Start drawing."""
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop drawing; the last state stays."""
        if self._live:
            self._live.stop()

    def update(self, snapshot: Snapshot) -> None:
        """Show a new moment."""
        if self._live:
            self._live.update(_drawn(snapshot))
        elif time.monotonic() - self._printed >= PLAIN_SECONDS:
            self._printed = time.monotonic()
            self._console.print(_line(snapshot), soft_wrap=True)

    def note(self, text: str) -> None:
        """Print an event above the live line."""
        self._console.print(safe(text), soft_wrap=True)


def _drawn(snapshot: Snapshot) -> Group:
    bar = Table.grid(padding=(0, 1))
    bar.add_row(ProgressBar(snapshot.cells, snapshot.cells_done, width=30), Text(_line(snapshot)))
    return Group(bar, Text(_stages(snapshot), style="dim"))


def _line(snapshot: Snapshot) -> str:
    parts = [f"{snapshot.cells_done:,}/{snapshot.cells:,} cells"]
    if snapshot.cells_failed:
        parts.append(f"{snapshot.cells_failed:,} failed")
    if snapshot.cells_blocked:
        parts.append(f"{snapshot.cells_blocked:,} blocked")
    parts.append(duration(snapshot.elapsed))
    if snapshot.cells_per_minute >= 1:
        parts.append(f"{snapshot.cells_per_minute:.0f} cells/min")
    if snapshot.usd is not None:
        parts.append(money(snapshot.usd))
    if snapshot.longest is not None:
        parts.append(under_way(*snapshot.longest))
    if snapshot.draining:
        running = sum(number for (_, state), number in snapshot.stages.items() if state is StageState.RUNNING)
        parts.append(f"finishing {count(running, 'running stage')}")
    elif snapshot.seconds_left is not None:
        parts.append(f"{duration(snapshot.seconds_left)} left")
    return " · ".join(parts)


def under_way(kind: str, share: float) -> str:
    """Say how much of a stage is done, as in `tune 34%`; never all of one that still runs."""
    return f"{kind} {min(99, int(100 * share))}%"


def _stages(snapshot: Snapshot) -> str:
    shown = []
    for kind in StageKind:
        states = {state: snapshot.stages.get((kind, state), 0) for state in StageState}
        total = sum(states.values())
        if total:
            busy = f" (+{states[StageState.RUNNING]} running)" if states[StageState.RUNNING] else ""
            shown.append(f"{kind.value} {states[StageState.DONE]:,}/{total:,}{busy}")
    return "  ".join(shown)
