"""The same grid, the same results, three ways: Dosimeter, Ray Tune, and one process a cell.

    python benchmarks/sharing.py [--rival-cells 32 | --full] [--seeds 6] [--ways dosimeter tune_reuse tune process]

The grid is 2 sources x 2 sizes x epochs 1, 3, 5 and 10 x 2 learning rates x 6 seeds = 192 cells on the stand-in, each
answering 110 prompts. Dosimeter runs all of it by its real command line (its one baseline included). Ray Tune runs one
TRL trial a cell, with reused actors (the model stays loaded) and with fresh ones; the plain loop runs one script a cell,
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
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

from rivals import ways
from rivals.grid import CORES, Cell, CellResult, cells
from rivals.ways import Way

NAMES = ("dosimeter", "tune_reuse", "tune", "process")


def rival_cells(asked: int) -> int:
    """Round up to whole turns of all cores, two at least, and to eights, which hold every size and length of training."""
    turn = math.lcm(8, CORES)
    return max(2 * CORES, math.ceil(asked / turn) * turn)


def run_all(chosen: argparse.Namespace, root: Path, number: int) -> dict[str, Way]:
    """Run the chosen ways one after another, each in a folder of its own, and say how long each took."""
    runs: Mapping[str, Callable[[Path], Way]] = {
        "dosimeter": lambda folder: ways.dosimeter(folder, chosen.seeds),
        "tune_reuse": lambda folder: ways.tune(folder, chosen.seeds, number, reuse=True),
        "tune": lambda folder: ways.tune(folder, chosen.seeds, number, reuse=False),
        "process": lambda folder: ways.processes(folder, chosen.seeds, number),
    }
    found = {}
    for name in chosen.ways:
        folder = root / name
        folder.mkdir(parents=True)
        found[name] = way = runs[name](folder)
        print(f"{name:12}{len(way.results):5} cells {way.seconds:8.1f} s   whole grid {way.whole:8.1f} s", flush=True)
    return found


def ratios(found: Mapping[str, Way]) -> dict[str, float | None]:
    """How many times as long as Dosimeter each rival takes for the whole grid; None where one did not run."""
    base = found.get("dosimeter")
    return {
        f"ratio_{name}": round(found[name].whole / base.whole, 2) if base is not None and name in found else None
        for name in NAMES[1:]
    }


def equality(found: Mapping[str, Way]) -> dict[str, object]:
    """How far each way's results are from those of the first rival that ran: on the cells that both ran."""
    names = [name for name in ("tune_reuse", "tune", "process", "dosimeter") if name in found]
    against = found[names[0]].results
    return {"against": names[0], **{name: _compared(found[name].results, against) for name in names[1:]}}


def _compared(mine: Mapping[Cell, CellResult], others: Mapping[Cell, CellResult]) -> dict[str, float]:
    pairs = [(mine[cell], others[cell]) for cell in mine.keys() & others.keys()]
    same = [
        mine_text == other.responses.get(prompt) for one, other in pairs for prompt, mine_text in one.responses.items()
    ]
    return {
        "cells": len(pairs),
        "responses": len(same),
        "equal_responses": round(sum(same) / len(same), 6),
        "largest_harmfulness_gap": round(max(abs(a.harmfulness_rate - b.harmfulness_rate) for a, b in pairs), 6),
        "largest_refusal_gap": round(max(abs(a.refusal_rate - b.refusal_rate) for a, b in pairs), 6),
    }


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
    whole = len(cells(chosen.seeds))
    number = whole if chosen.full else min(rival_cells(chosen.rival_cells), whole)
    with ExitStack() as stack:
        root = chosen.out or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dosimeter-sharing-")))
        found = run_all(chosen, root, number)
        line: dict[str, object] = {**ratios(found)}
        line |= {f"{name}_s": round(way.whole, 1) for name, way in found.items()}
        line |= {f"{name}_measured_s": round(way.seconds, 1) for name, way in found.items()}
        line |= {"cells": whole, "rival_cells": number, "scaled": number < whole, "cores": CORES}
        print(json.dumps(line | {"equality": equality(found)}))


if __name__ == "__main__":
    main()
