"""A plain script that runs the cells at POSITION..., one after another: `python -m rivals.one_cell GRID FOLDER POSITION...`."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil

from rivals.grid import Grid, save
from rivals.trl_cell import Worker

ALONE = 4


def main() -> None:
    """Run the cells and write their results into FOLDER."""
    grid, folder = Grid.load(Path(sys.argv[1])), Path(sys.argv[2])
    worker, cells = Worker(grid), grid.cells
    for position in map(int, sys.argv[3:]):
        result = worker.run(cells[position])
        if len(sys.argv) == ALONE:
            result = replace(result, seconds=time.time() - psutil.Process().create_time())
        save(result, folder, position)


if __name__ == "__main__":
    main()
