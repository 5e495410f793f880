"""What the engine itself costs: --help, planning, stages that do nothing, a finished sweep run again, the first result.

    python benchmarks/overhead.py [--cells 100000] [--stages 10000] [--finished-cells 1000]

Every command runs in a process of its own. CPU seconds and peak memory are those of that process (of the driver, then,
not of Ray's processes); wall seconds are the whole command's. Expansion is set beside sklearn's ParameterGrid, Ray Tune's
variant generator and Hydra's sweeper, where `pip install -e '.[bench]'` has brought them.

The stages that do nothing go through the real command line and real Ray, with adapters from `benchmarks/noop`, and every
one of them leaves durable results; `ms_per_stage` is the wall time of the big sweep less that of a handful of stages,
a stage. The last line is JSON. It takes about 4 minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import command
from command import Cost, best, cost
from expansion import CELLS_PER_SEED, NOT_INSTALLED, TOOLS, spec

from engine.domain.errors import DosimeterError
from engine.store.reader import open_results

QUICKSTART = Path(__file__).parents[1] / "sweeps" / "quickstart.yaml"
EXPANSION = Path(__file__).with_name("expansion.py")
NOOP = """\
sweep: noop
recipe:
  model: noop/model
  data: {{source: noop/rows, n: 2}}
  tune: {{adapter: noop/tuner, epochs: 1, lr: 1e-3}}
  benchmark: noop/prompts
  generate: {{adapter: noop/generator, max_new_tokens: 1}}
  judges: [noop/judge]
axes:
  seed: {seeds}
run: {{max_cells: 10000000}}
"""
STAGES_PER_CELL = 4
"""A sample, a tune, a generate and a judge stage, since no two cells have the same seed."""

HANDFUL = 2
TENTH = 10
FIRST_RESULT_LIMIT_S = 600.0
POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class NoopRun:
    """A run of stages that do nothing: how many there were, and what the command cost."""

    stages: int
    cost: Cost


def expansions(cells: int) -> dict[str, dict[int, float | None]]:
    """Expand a tenth of the cells and all of them with every tool: CPU microseconds a cell, None where it is missing."""
    sizes = (max(1, cells // TENTH // CELLS_PER_SEED), max(1, cells // CELLS_PER_SEED))
    return {tool: {seeds * CELLS_PER_SEED: _expansion(tool, seeds) for seeds in sizes} for tool in TOOLS}


def _expansion(tool: str, seeds: int) -> float | None:
    line = [sys.executable, str(EXPANSION), tool, str(seeds)]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    if done.returncode == NOT_INSTALLED:
        print(f"{tool} is not installed, so it is left out: pip install -e '.[bench]'")
        return None
    if done.returncode:
        raise SystemExit(f"{tool} failed: {done.stderr[-2000:]}")
    return float(done.stdout.splitlines()[-1]) / (seeds * CELLS_PER_SEED) * 1e6


def plans(cells: int, folder: Path) -> dict[str, Cost]:
    """Ask for help, and plan the quickstart, a tenth of the cells and all of them."""
    found = {"--help": best("--help", folder=folder), "plan quickstart": best("plan", str(QUICKSTART), folder=folder)}
    for seeds in (max(1, cells // TENTH // CELLS_PER_SEED), max(1, cells // CELLS_PER_SEED)):
        (folder / "grid.yaml").write_text(spec(seeds))
        found[f"plan {seeds * CELLS_PER_SEED:,} cells"] = best("plan", "grid.yaml", folder=folder, times=1)
    return found


def noop_run(cells: int, folder: Path) -> NoopRun:
    """Run a sweep of so many cells in which no stage does anything, from nothing to durable results."""
    (folder / "noop.yaml").write_text(NOOP.format(seeds=list(range(cells))))
    spent = cost("run", "noop.yaml", "--json", "--out", f"noop-{cells}", folder=folder)
    summary = json.loads(spent.output)
    if summary["ending"] != "complete" or summary["ran"] < cells * STAGES_PER_CELL:
        raise SystemExit(f"{cells} cells ended so: {summary}")
    return NoopRun(summary["ran"], spent)


def rerun(cells: int, folder: Path) -> Cost:
    """Run a sweep of so many cells that has finished once more: it must do nothing."""
    (folder / "noop.yaml").write_text(NOOP.format(seeds=list(range(cells))))
    again = best("run", "noop.yaml", "--json", "--out", f"noop-{cells}", folder=folder)
    summary = json.loads(again.output)
    if summary["ran"]:
        raise SystemExit(f"a finished sweep ran again: {summary}")
    return again


def first_result(folder: Path) -> float:
    """Start the quickstart, and return the seconds until a query finds a finished tuned cell; then interrupt the run."""
    begun = time.monotonic()
    line = command.command(folder / "account", "run", str(QUICKSTART), "--out", "quickstart")
    with (folder / "said").open("w") as said:
        run = subprocess.Popen(line, cwd=folder, env=command.environment(), stdout=said, stderr=said)
    try:
        while not _has_result(folder / "quickstart"):
            if run.poll() is not None or time.monotonic() - begun > FIRST_RESULT_LIMIT_S:
                raise SystemExit(f"the quickstart finished no cell:\n{(folder / 'said').read_text()[-2000:]}")
            time.sleep(POLL_S)
        return time.monotonic() - begun
    finally:
        run.send_signal(signal.SIGINT)
        run.wait()


def _has_result(run_dir: Path) -> bool:
    try:
        with open_results(run_dir, threads=1) as results:
            rows = results.table("SELECT 1 FROM v_cells WHERE status = 'done' AND NOT is_baseline LIMIT 1")
    except DosimeterError:  # nothing is published yet
        return False
    return bool(rows.num_rows)


def print_expansions(found: Mapping[str, Mapping[int, float | None]]) -> None:
    """Print microseconds a cell, one tool a line."""
    sizes = next(iter(found.values()))
    print(f"\n{'expansion, CPU us a cell':30}" + "".join(f"{size:>10,}" for size in sizes))
    for tool, spent in found.items():
        print(f"{tool:30}" + "".join(f"{'-' if us is None else f'{us:.1f}':>10}" for us in spent.values()))


def print_costs(found: Mapping[str, Cost]) -> None:
    """Print what commands cost, one a line."""
    print(f"\n{'command':30}{'cpu s':>10}{'wall s':>10}{'peak MB':>10}")
    for what, spent in found.items():
        print(f"{what:30}{spent.cpu_s:10.2f}{spent.wall_s:10.2f}{spent.peak_mb:10.0f}")


def print_runs(runs: list[NoopRun]) -> None:
    """Print what runs of stages that do nothing cost, start-up counted and not; the first is a handful of stages."""
    titles = ("wall s", "ms/stage", "less start", "driver ms", "peak MB")
    print(f"\n{'stages that do nothing':30}" + "".join(f"{title:>12}" for title in titles))
    for run in runs:
        wall, cpu = per_stage(run, runs[0])
        gross = run.cost.wall_s / run.stages * 1e3
        print(f"{run.stages:<30,}{run.cost.wall_s:12.2f}{gross:12.2f}{wall:12.2f}{cpu:12.2f}{run.cost.peak_mb:12.0f}")


def per_stage(run: NoopRun, handful: NoopRun) -> tuple[float, float]:
    """Milliseconds of wall and of the driver's CPU a stage, less those of a run of a handful of stages."""
    wall = (run.cost.wall_s - handful.cost.wall_s) / run.stages
    return wall * 1e3, (run.cost.cpu_s - handful.cost.cpu_s) / run.stages * 1e3


def main() -> None:
    """Measure, print tables, and print the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=100_000, help="cells of the big plan (default 100,000)")
    parser.add_argument("--stages", type=int, default=10_000, help="stages that do nothing (default 10,000)")
    parser.add_argument(
        "--finished-cells", type=int, default=1_000, help="cells of the sweep run again (default 1,000)"
    )
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dosimeter-overhead-") as name:
        folder = Path(name)
        print_expansions(expanded := expansions(chosen.cells))
        print_costs(planned := plans(chosen.cells, folder))
        most = -(-chosen.stages // STAGES_PER_CELL)
        sizes = sorted({HANDFUL, -(-most // TENTH), chosen.finished_cells, most})
        runs = {cells: noop_run(cells, folder) for cells in sizes}
        print_runs(list(runs.values()))
        again = rerun(chosen.finished_cells, folder)
        first = first_result(folder)
        print_costs({f"run {chosen.finished_cells:,} finished cells": again})
        print(f"\n{'first finished cell of the quickstart, by a query':50}{first:10.2f} s")
    big, tenth, handful = runs[most], runs[-(-most // TENTH)], runs[HANDFUL]
    wall, driver = per_stage(big, handful)
    *_, plan_10k, plan_100k = planned.values()
    line = {
        "ms_per_stage": round(wall, 3),
        "plan_100k_s": round(plan_100k.wall_s, 2),
        "rerun_1000_cells_s": round(again.wall_s, 2),
        "help_cpu_s": round(planned["--help"].cpu_s, 3),
        "plan_10k_s": round(plan_10k.wall_s, 2),
        "first_result_s": round(first, 2),
        "noop_stages": big.stages,
        "noop_wall_s": round(big.cost.wall_s, 2),
        "noop_start_up_s": round(handful.cost.wall_s, 2),
        "driver_cpu_ms_per_stage": round(driver, 3),
        "peak_mb": {str(run.stages): round(run.cost.peak_mb) for run in (handful, tenth, big)},
        "expansion_us_per_cell": {tool: list(spent.values()) for tool, spent in expanded.items()},
        "cells": chosen.cells,
        "finished_cells": chosen.finished_cells,
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
