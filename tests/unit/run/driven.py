"""Driving sweeps of small adapters in this process, and looking at what they leave."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.domain.plan import Plan
from engine.domain.sweep import RunSettings
from engine.run.drive.driver import run_sweep
from engine.run.drive.order import RunOrder, RunSummary
from engine.run.drive.prepare import Prepared, prepare
from engine.run.executors.workers import Executor, InlineExecutor
from engine.store import shards
from engine.store.layout import RunDirectory
from engine.store.state import State

ACME = """\
sweep: acme
recipe:
  model: acme/clay
  data: {source: acme/letters, n: 4}
  tune: {use: acme/press, epochs: 1}
  generate: {use: acme/voice, max_new_tokens: 8}
  benchmark: acme/riddles
  judges: [acme/guard]
"""


@dataclass
class Drive:
    """A folder in which sweeps are driven. Implements `engine.run.drive.progress.Observer`.

    Attributes:
        folder: Where the spec and the run directory are.
        notes: What the last run said.
    """

    folder: Path
    notes: list[str] = field(default_factory=list)

    @property
    def run(self) -> RunDirectory:
        return RunDirectory(self.folder / "run")

    def update(self, snapshot: object) -> None:
        del snapshot

    def note(self, text: str) -> None:
        self.notes.append(text)

    def prepared(self, spec: str) -> Prepared:
        path = self.folder / "driven.yaml"
        path.write_text(spec)
        return prepare(path, (), self.run.root)

    def __call__(
        self, spec: str, make: Callable[[Path, RunSettings], Executor] = InlineExecutor, **more: Any
    ) -> tuple[RunSummary, Plan]:
        """Drive a sweep to its end, or go on with it."""
        ready = self.prepared(spec)
        self.notes.clear()
        settings = ready.loaded.sweep.run
        order = RunOrder(ready, **more)
        return run_sweep(order, self.run, lambda: make(self.run.root, settings), self), ready.plan

    def rows(self, key: str, table: str) -> list[Mapping[str, Any]]:
        """Return the rows that a stage left in a table."""
        with closing(State.peek(self.run)) as state:
            (shard,) = [shard for _, shard in state.shards([key]) if shard.table == table]
        return shards.read_rows(self.run, shard, key)

    def stories(self, plan: Plan) -> dict[str, str]:
        """Return what each cell's user gets to see of its first answer, without the request, by label."""
        last = {cell.label: cell.evaluations[0] for cell in plan.cells}
        shown = {
            label: next((key for key in reversed(entry.screening) if key.startswith("screen")), entry.generate)
            for label, entry in last.items()
        }
        return {label: self.rows(key, "responses")[0]["text"] for label, key in shown.items()}

    def attempts(self) -> dict[str, int]:
        """Return how often each stage was tried, of those that were."""
        with closing(State.peek(self.run)) as state:
            tried = [key for key, _, _ in state.charges()]
        return {key: tried.count(key) for key in tried}

    def artifacts(self) -> set[str]:
        """Return the keys of the stages whose artifact lies in the run directory."""
        return {path.name for path in self.run.artifacts.glob("*")}
