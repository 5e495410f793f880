"""A plain script that runs one cell: `python -m rivals.one_cell SEEDS POSITION FOLDER`. A loop calls it for each."""

from __future__ import annotations

import sys
from pathlib import Path

from rivals.grid import cells, save
from rivals.trl_cell import Worker


def main() -> None:
    """Run the cell at POSITION and write its result into FOLDER."""
    seeds, position, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    save(Worker().run(cells(seeds)[position]), folder, position)


if __name__ == "__main__":
    main()
