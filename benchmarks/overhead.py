"""What the engine itself costs: --help, planning, and a finished sweep run again.

    python benchmarks/overhead.py [--cells 100000]

Each command runs in a process of its own, and the operating system's account of it is printed: CPU seconds, wall
seconds, peak memory. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

DOSIMETER = [sys.executable, "-c", "from engine.cli.main import main; main()"]
QUICKSTART = Path(__file__).parents[1] / "sweeps" / "quickstart.yaml"
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
  seed: [{seeds}]
run: {{max_cells: 10000000}}
"""
CELLS_PER_SEED = 2 * 10 * 10 * 10


@dataclass(frozen=True, slots=True)
class Cost:
    """What one process cost: CPU seconds, wall seconds, peak resident memory in MB."""

    cpu_s: float
    wall_s: float
    peak_mb: float


def cost(*arguments: str, folder: Path) -> Cost:
    """Run the command line once and return what it cost."""
    begun = time.monotonic()
    child = subprocess.Popen([*DOSIMETER, *arguments], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, used = os.wait4(child.pid, 0)
    if status:
        message = f"dosimeter {' '.join(arguments)} failed"
        raise SystemExit(message)
    return Cost(used.ru_utime + used.ru_stime, time.monotonic() - begun, used.ru_maxrss / 1024)


def best(*arguments: str, folder: Path, times: int = 3) -> Cost:
    """Return the cheapest of several runs: the others paid for somebody else's work too."""
    return min((cost(*arguments, folder=folder) for _ in range(times)), key=lambda found: found.cpu_s)


def main() -> None:
    """Measure, print a table, and print the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=100_000, help="cells of the big plan (default 100,000)")
    cells = parser.parse_args().cells
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        seeds = max(1, cells // CELLS_PER_SEED)
        (folder / "grid.yaml").write_text(GRID.format(seeds=", ".join(map(str, range(seeds)))))
        small = ("--set", "data.n=10", "--set", "tune.epochs=1", "--set", "data.source=standin/explicit")
        cost("run", str(QUICKSTART), *small, "--executor", "inline", "--out", "finished", folder=folder)
        found = {
            "help": best("--help", folder=folder),
            "plan_quickstart": best("plan", str(QUICKSTART), folder=folder),
            f"plan_{seeds * CELLS_PER_SEED}_cells": best("plan", "grid.yaml", folder=folder, times=1),
            "run_finished": best("run", str(QUICKSTART), *small, "--out", "finished", folder=folder),
        }
    print(f"{'':28}{'cpu s':>8}{'wall s':>8}{'peak MB':>9}")
    for what, spent in found.items():
        print(f"{what:28}{spent.cpu_s:8.2f}{spent.wall_s:8.2f}{spent.peak_mb:9.0f}")
    big = found[f"plan_{seeds * CELLS_PER_SEED}_cells"]
    print(json.dumps({"help_cpu_s": found["help"].cpu_s, "plan_cells": seeds * CELLS_PER_SEED, "plan_s": big.wall_s}))


if __name__ == "__main__":
    main()
