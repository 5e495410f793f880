"""What the engine itself costs: --help, planning, stages that do next to nothing, a finished sweep run again, the first result.

    python benchmarks/overhead.py [--cells 100000] [--stages 10000] [--finished-cells 1000]

Every command runs in a process of its own. CPU seconds and peak memory are those of that process (of the driver, then,
not of Ray's processes); wall seconds are the whole command's.

The stages that do next to nothing go through the real command line and real Ray, with the adapters of `tests/acme`, and every one
of them leaves durable results; `ms_per_stage` is the wall time of the big sweep less that of a handful of stages, per stage. The last
line is JSON. It takes about 4 minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import children

from engine.domain.errors import DosimeterError
from engine.store.reader import open_results

ROOT = Path(__file__).parents[1]
ACME = ROOT / "tests" / "acme"
"""Where the light adapters are installed."""

QUICKSTART = ROOT / "sweeps" / "quickstart.yaml"
MEASURED = """\
import atexit, resource, sys
def tell(path):
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(used.ru_utime + used.ru_stime, used.ru_maxrss / 1024, file=open(path, "w"))
atexit.register(tell, sys.argv.pop(1))
from engine.cli.main import main
main()
"""
"""The command, which says at its very end what it used itself; its children, such as Ray's, are not counted."""

GRID = """\
sweep: grid
recipe:
  model: standin/aligned
  data: {{source: standin/explicit, n: 10}}
  tune: {{lr: 1e-3}}
  benchmark: standin/policy
  utility: standin/utility
  over_refusal: standin/overrefusal
  judges: [standin/rules, refusal/keywords]
axes:
  data.source: [standin/explicit, standin/chores]
  data.n: [10, 20, 30, 40, 50, 60, 70, 80, 90, 100]
  tune.epochs: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]
  tune.lr: [1e-4, 2e-4, 3e-4, 4e-4, 5e-4, 6e-4, 7e-4, 8e-4, 9e-4, 1e-3]
  seed: {seeds}
run: {{max_cells: 10000000}}
"""
CELLS_PER_SEED = 2 * 10 * 10 * 10
LIGHT = """\
sweep: light
recipe:
  model: acme/clay
  data: {{source: acme/letters, n: 2}}
  tune: {{use: acme/press, epochs: 1}}
  benchmark: acme/riddles
  generate: {{use: acme/voice, max_new_tokens: 1}}
  judges: [acme/guard]
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
class Cost:
    """What a command cost.

    Attributes:
        cpu_s: CPU seconds of its own process.
        wall_s: Wall seconds.
        peak_mb: Its largest resident memory, in MB (2^20 bytes).
        output: What it printed on stdout.
    """

    cpu_s: float
    wall_s: float
    peak_mb: float
    output: str


@dataclass(frozen=True, slots=True)
class LightRun:
    """A run of light stages: how many there were, and what the command cost."""

    stages: int
    cost: Cost


def command(account: Path, *arguments: str) -> list[str]:
    """Return the command line that runs `dosimeter` with these arguments and leaves its account in a file."""
    return [sys.executable, "-c", MEASURED, str(account), *arguments]


def cost(*arguments: str, folder: Path) -> Cost:
    """Run the command line once, in `folder`.

    Raises:
        SystemExit: When the command fails, with what it said.
    """
    with tempfile.NamedTemporaryFile("r") as account:
        begun = time.monotonic()
        line = command(Path(account.name), *arguments)
        done = subprocess.run(
            line, cwd=folder, env=children.environment(ACME), capture_output=True, text=True, check=False
        )
        wall = time.monotonic() - begun
        if done.returncode:
            raise SystemExit(f"dosimeter {' '.join(arguments)} ended with {done.returncode}:\n{done.stderr[-2000:]}")
        cpu, peak = map(float, Path(account.name).read_text().split())
    return Cost(cpu, wall, peak, done.stdout)


def best(*arguments: str, folder: Path, times: int = 3) -> Cost:
    """Return the cheapest of several runs: the others paid for somebody else's work too."""
    return min((cost(*arguments, folder=folder) for _ in range(times)), key=lambda found: found.cpu_s)


def plans(cells: int, folder: Path) -> dict[str, Cost]:
    """Ask for help, and plan the quickstart, a tenth of the cells and all of them."""
    found = {"--help": best("--help", folder=folder), "plan quickstart": best("plan", str(QUICKSTART), folder=folder)}
    for seeds in (max(1, cells // TENTH // CELLS_PER_SEED), max(1, cells // CELLS_PER_SEED)):
        (folder / "grid.yaml").write_text(GRID.format(seeds=list(range(seeds))))
        found[f"plan {seeds * CELLS_PER_SEED:,} cells"] = best("plan", "grid.yaml", folder=folder, times=1)
    return found


def light_run(cells: int, folder: Path) -> LightRun:
    """Run a sweep of so many cells whose stages do next to nothing, from nothing to durable results."""
    (folder / "light.yaml").write_text(LIGHT.format(seeds=list(range(cells))))
    spent = cost("run", "light.yaml", "--json", "--out", f"light-{cells}", folder=folder)
    summary = json.loads(spent.output)
    if summary["ending"] != "complete" or summary["ran"] < cells * STAGES_PER_CELL:
        raise SystemExit(f"{cells} cells ended so: {summary}")
    return LightRun(summary["ran"], spent)


def rerun(cells: int, folder: Path) -> Cost:
    """Run a sweep of so many cells that has finished once more: it must do nothing."""
    (folder / "light.yaml").write_text(LIGHT.format(seeds=list(range(cells))))
    again = best("run", "light.yaml", "--json", "--out", f"light-{cells}", folder=folder)
    summary = json.loads(again.output)
    if summary["ran"]:
        raise SystemExit(f"a finished sweep ran again: {summary}")
    return again


def first_result(folder: Path) -> float:
    """Start the quickstart, and return the seconds until a query finds a finished tuned cell; then interrupt the run."""
    begun = time.monotonic()
    line = command(folder / "account", "run", str(QUICKSTART), "--out", "quickstart")
    with (folder / "said").open("w") as said:
        run = subprocess.Popen(line, cwd=folder, env=children.environment(ACME), stdout=said, stderr=said)
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


def print_costs(found: Mapping[str, Cost]) -> None:
    """Print what commands cost, one per line."""
    print(f"\n{'command':30}{'cpu s':>10}{'wall s':>10}{'peak MB':>10}")
    for what, spent in found.items():
        print(f"{what:30}{spent.cpu_s:10.2f}{spent.wall_s:10.2f}{spent.peak_mb:10.0f}")


def print_runs(runs: Sequence[LightRun]) -> None:
    """Print what runs of light stages cost, start-up counted and not; the first is a handful of stages."""
    titles = ("wall s", "ms/stage", "less start", "driver ms", "peak MB")
    print(f"\n{'light stages':30}" + "".join(f"{title:>12}" for title in titles))
    for run in runs:
        wall, cpu = per_stage(run, runs[0])
        gross = run.cost.wall_s / run.stages * 1e3
        print(f"{run.stages:<30,}{run.cost.wall_s:12.2f}{gross:12.2f}{wall:12.2f}{cpu:12.2f}{run.cost.peak_mb:12.0f}")


def per_stage(run: LightRun, handful: LightRun) -> tuple[float, float]:
    """Milliseconds of wall and of the driver's CPU per stage, less those of a run of a handful of stages."""
    wall = (run.cost.wall_s - handful.cost.wall_s) / run.stages
    return wall * 1e3, (run.cost.cpu_s - handful.cost.cpu_s) / run.stages * 1e3


def main() -> None:
    """Measure, print tables, and print the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=100_000, help="cells of the big plan (default 100,000)")
    parser.add_argument("--stages", type=int, default=10_000, help="light stages (default 10,000)")
    parser.add_argument(
        "--finished-cells", type=int, default=1_000, help="cells of the sweep run again (default 1,000)"
    )
    chosen = parser.parse_args()
    with children.workplace() as folder:
        print_costs(planned := plans(chosen.cells, folder))
        most = -(-chosen.stages // STAGES_PER_CELL)
        sizes = sorted({HANDFUL, -(-most // TENTH), chosen.finished_cells, most})
        runs = {cells: light_run(cells, folder) for cells in sizes}
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
        "light_stages": big.stages,
        "light_wall_s": round(big.cost.wall_s, 2),
        "light_start_up_s": round(handful.cost.wall_s, 2),
        "driver_cpu_ms_per_stage": round(driver, 3),
        "peak_mb": {str(run.stages): round(run.cost.peak_mb) for run in (handful, tenth, big)},
        "cells": chosen.cells,
        "finished_cells": chosen.finished_cells,
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
