"""The same grid, the same results, three ways: Dosimeter, Ray Tune, and one process a cell.

    python benchmarks/sharing.py [--rival-cells 32 | --full] [--seeds 6] [--ways dosimeter tune_reuse process]

The grid is 2 sources x 2 sizes x epochs 1, 3, 5 and 10 x 2 learning rates x 6 seeds = 192 cells on the stand-in, each
answering 110 prompts. Dosimeter runs all of it by its real command line (its one baseline included). Ray Tune runs one
TRL trial a cell, with reused actors, so that the model stays loaded; the plain loop runs one script a cell,
one at a time on each core. Rivals see the same rows and prompts, and grade by the same rules.

Times are wall seconds of whole commands, start-up included. Cells share nothing in the rivals, so by default they run
a subset with every level equally often, and their time for the whole grid is what they took plus the measured cost of
a cell for each cell left out; `--full` runs them all. Responses are compared, so that speed does not come from doing
something else. The last line is JSON. It takes about 11 minutes on two cores, with `--full` about an hour.

It needs `pip install -e '.[bench]'`.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import children
from rivals.grid import CORES, Grid
from rivals.ways import Runner, prompts_of, rows_of, summary

from engine import registry
from engine.domain.adapters import NO_SETTINGS, Kind

NAMES = ("dosimeter", "tune_reuse", "process")
MODEL, BENCHMARK = "standin/aligned", "standin/policy"
SOURCES = ("standin/explicit", "standin/chores")
EPOCHS = (3, 5, 1, 10)


def standin_grid(seeds: int) -> Grid:
    """Return 32 cells a seed, so ordered that the first 8, 16 or 32 hold every size and length of training equally often."""
    return Grid(
        model=MODEL,
        folder=str(registry.adapter(Kind.MODEL, MODEL).locate(NO_SETTINGS).base),
        sources=SOURCES,
        sizes=(50, 10),
        epochs=EPOCHS,
        lrs=(5e-4, 1.5e-3),
        seeds=seeds,
        rows={source: rows_of(source) for source in SOURCES},
        benchmark=BENCHMARK,
        prompts=prompts_of(BENCHMARK),
        new_tokens=32,
    )


def rival_cells(asked: int) -> int:
    """Round up to whole turns of all cores, and to eights, which hold every size and length of training."""
    turn = math.lcm(8, CORES)
    return math.ceil(asked / turn) * turn


def main() -> None:
    """Run the ways, compare them, and print the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--rival-cells",
        type=int,
        default=32,
        help="cells that each rival runs, rounded up to whole turns of the cores (default 32)",
    )
    parser.add_argument("--full", action="store_true", help="rivals run every cell")
    parser.add_argument("--seeds", type=int, default=6, help="seeds of the grid, 32 cells each (default 6)")
    parser.add_argument("--ways", nargs="+", choices=NAMES, default=NAMES, help="which ways to run (default: all)")
    parser.add_argument("--out", type=Path, help="keep the ways' folders in this new one")
    chosen = parser.parse_args()
    grid = standin_grid(chosen.seeds)
    whole = len(grid.cells)
    number = whole if chosen.full else min(rival_cells(chosen.rival_cells), whole)
    with children.workplace(chosen.out) as folder:
        runner = Runner(grid, folder, number)
        found = {name: runner.run(name) for name in chosen.ways}
    line = {"cells": whole, "rival_cells": number, "scaled": number < whole, "cores": CORES}
    print(json.dumps(summary(found) | line))


if __name__ == "__main__":
    main()
