"""Dosimeter in a notebook: plan a sweep, run it, and read its results as Arrow, pandas or polars.

    import dosimeter

    ahead = dosimeter.plan("sweeps/quickstart.yaml")
    print(ahead.cells, ahead.stages_to_run, ahead.seconds)
    run = dosimeter.run("sweeps/quickstart.yaml", {"seed": [0, 1]})
    run.cells().to_pandas()
    run.query("SELECT data_source, avg(harmfulness_rate) FROM v_cells GROUP BY data_source").to_pandas()

It does what the commands `plan`, `run` and `query` do, and raises what they would print: `DosimeterError` and its kin.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from engine.domain.errors import DosimeterError

if TYPE_CHECKING:
    import pyarrow as pa

    from engine.run.drive.prepare import Prepared

__all__ = ["DosimeterError", "Ended", "Planned", "Run", "open_run", "plan", "run"]

Overrides = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Planned:
    """What a sweep will do.

    Attributes:
        sweep: Its name.
        folder: Its run directory; it may not exist yet.
        cells: Cells, those that are added for comparison included.
        stages: Distinct stages.
        stages_to_run: Those that have not run yet.
        seconds: (low, expected, high) device-seconds of the rest.
        usd: (low, expected, high) US dollars of the rest; None when a price is unknown.
        document: The whole plan, as `dosimeter plan --json` prints it.
    """

    sweep: str
    folder: Path
    cells: int
    stages: int
    stages_to_run: int
    seconds: tuple[float, float, float]
    usd: tuple[Decimal, Decimal, Decimal] | None
    document: Mapping[str, Any]


class Run:
    """A run directory, for reading. A run that is under way can be read too.

    Args:
        folder: The run directory.
    """

    def __init__(self, folder: str | Path) -> None:
        """Remember where it is; nothing is kept open."""
        self.folder = Path(folder)

    def query(
        self, question: str, parameters: Sequence[object] | Mapping[str, object] | None = None, *, timeout: float = 60.0
    ) -> pa.Table:
        """Answer a question about the run, as an Arrow table: `.to_pandas()`, or `polars.from_arrow(...)`.

        Args:
            question: A named query, such as `dose`, or one SELECT-like statement over the public views.
            parameters: Values for `?` or `$name` in the statement.
            timeout: Seconds after which the query is stopped, > 0.

        Raises:
            QueryError: The question is unknown or wrong, or took too long.
            StoreError: The run has no readable results.
        """
        from analysis.query import ask

        return ask(self.folder, question, parameters, timeout_s=timeout)

    def cells(self) -> pa.Table:
        """Return one row per cell: the view `v_cells`, in the order of the plan."""
        return self.query("FROM v_cells ORDER BY position")

    def scores(self) -> pa.Table:
        """Return one row per cell, benchmark, judge, prompt and sample: the view `v_scores`."""
        return self.query("FROM v_scores")

    def __repr__(self) -> str:
        """Return how to open it again."""
        return f"dosimeter.open_run({str(self.folder)!r})"


@dataclass(frozen=True, slots=True)
class Ended:
    """How a run ended. `results` reads what it has made.

    Attributes:
        ending: `complete`, `nothing to do`, `finished with failures`, `stopped by the budget`, ...
        ran: Stages that ended in this run.
        failed: Stages that failed.
        reason: Why it stopped early, and what to do; empty when it did not.
        seconds: Wall seconds.
        results: The run directory, for reading.
    """

    ending: str
    ran: int
    failed: int
    reason: str
    seconds: float
    results: Run


def plan(spec: str | Path, overrides: Overrides | None = None, *, out: str | Path | None = None) -> Planned:
    """Say what a sweep will do, and at what cost. Starts nothing and changes nothing on disk.

    Args:
        spec: The YAML file.
        overrides: Values by path, as `--set` takes them: `{"tune.lr": 1e-3, "seed": [0, 1]}`.
        out: The run directory; `runs/<sweep name>` when None.

    Raises:
        SpecError: The spec is wrong; with every problem and its position.
        PlanError: It cannot be planned.
    """
    from engine.cli.plan_verb import document

    prepared = _prepared(spec, overrides, out)
    ahead = prepared.forecast
    low, expected, high = (usage.device_seconds for usage in (ahead.total.low, ahead.total.expected, ahead.total.high))
    return Planned(
        sweep=prepared.plan.sweep,
        folder=prepared.root,
        cells=prepared.plan.counts.cells,
        stages=ahead.stages,
        stages_to_run=ahead.new,
        seconds=(low, expected, high),
        usd=ahead.usd,
        document=document(prepared),
    )


def run(
    spec: str | Path,
    overrides: Overrides | None = None,
    *,
    out: str | Path | None = None,
    executor: Literal["ray", "inline"] = "ray",
    fail_fast: bool = False,
) -> Ended:
    """Run a sweep. The same call resumes it; nothing that has finished runs again.

    Args:
        spec: The YAML file.
        overrides: Values by path, as `--set` takes them.
        out: The run directory; `runs/<sweep name>` when None.
        executor: Where stages run: on Ray, or in this process.
        fail_fast: Start nothing more after the first failure.

    Raises:
        SpecError: The spec is wrong.
        PlanError: It cannot be planned.
        RunError: It cannot start.
        StoreError: The run directory is damaged, or is another's.
    """
    from engine.cli.run_verb import execute

    folder = None if out is None else Path(out)
    summary, root = execute(Path(spec), _texts(overrides), folder, executor, fail_fast=fail_fast)
    return Ended(summary.ending.value, summary.ran, summary.failed, summary.reason, summary.seconds, Run(root))


def open_run(folder: str | Path) -> Run:
    """Open a run directory for reading.

    Raises:
        StoreError: It is no run directory.
    """
    from engine.store.layout import RunDirectory

    if not RunDirectory(Path(folder)).state.is_file():
        from engine.domain.errors import StoreError

        raise StoreError("this is no run directory", where=str(folder), todo="`dosimeter run` makes one in runs/NAME")
    return Run(folder)


def _prepared(spec: str | Path, overrides: Overrides | None, out: str | Path | None) -> Prepared:
    from engine.run.drive.prepare import prepare

    return prepare(Path(spec), _texts(overrides), None if out is None else Path(out))


def _texts(overrides: Overrides | None) -> tuple[str, ...]:
    """Return overrides as `--set` has them; JSON is YAML."""
    return tuple(f"{path}={json.dumps(value)}" for path, value in (overrides or {}).items())
