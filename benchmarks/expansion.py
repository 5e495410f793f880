"""Expands one grid with one tool and prints its CPU seconds: `python benchmarks/expansion.py TOOL SEEDS`.

TOOL is one of the names in `TOOLS`; the grid has 2 x 10 x 10 x 10 x SEEDS cells. Imports are not counted, and neither is
what a tool does after expanding: Dosimeter's cells are validated recipes, Hydra's are lists of strings, the others'
dictionaries. Exits with 3 when the tool is not installed (`pip install -e '.[bench]'`). `overhead.py` calls it.
"""

from __future__ import annotations

import importlib
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

CELLS_PER_SEED = 2 * 10 * 10 * 10
NOT_INSTALLED = 3
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

Expand = Callable[[], int]
Axes = Mapping[str, Sequence[object]]


def spec(seeds: int) -> str:
    """Return the grid as Dosimeter's YAML."""
    return GRID.format(seeds=", ".join(map(str, range(seeds))))


def axes(seeds: int) -> Axes:
    """Return the grid as a mapping from names to levels."""
    return {
        "source": ["standin/explicit", "standin/chores"],
        "n": list(range(10, 101, 10)),
        "epochs": list(range(1, 11)),
        "lr": [rate / 10_000 for rate in range(1, 11)],
        "seed": list(range(seeds)),
    }


def _dosimeter(seeds: int) -> Expand:
    load, expand = importlib.import_module("engine.spec.load"), importlib.import_module("engine.spec.expand")
    text = spec(seeds).encode()

    def run() -> int:
        loaded = load.read_sweep(text, "grid.yaml")
        return len(expand.expand(loaded.sweep, loaded.positions).cells)

    return run


def _itertools(seeds: int) -> Expand:
    grid = axes(seeds)
    return lambda: len([dict(zip(grid, levels, strict=True)) for levels in product(*grid.values())])


def _sklearn(seeds: int) -> Expand:
    parameter_grid: Any = importlib.import_module("sklearn.model_selection").ParameterGrid
    return lambda: len(list(parameter_grid(axes(seeds))))


def _ray_tune(seeds: int) -> Expand:
    tune: Any = importlib.import_module("ray.tune")
    generator: Any = importlib.import_module("ray.tune.search.variant_generator")
    space = {name: tune.grid_search(levels) for name, levels in axes(seeds).items()}
    os.environ["TUNE_WARN_THRESHOLD_S"] = "100"
    return lambda: len(list(generator.generate_variants(space)))


def _hydra(seeds: int) -> Expand:
    sweeper: Any = importlib.import_module("hydra._internal.core_plugins.basic_sweeper").BasicSweeper
    parser: Any = importlib.import_module("hydra.core.override_parser.overrides_parser").OverridesParser
    texts = [f"{name}={','.join(map(str, levels))}" for name, levels in axes(seeds).items()]
    return lambda: sum(map(len, sweeper.split_arguments(parser.create().parse_overrides(texts), None)))


TOOLS: Mapping[str, Callable[[int], Expand]] = {
    "dosimeter": _dosimeter,
    "itertools.product": _itertools,
    "sklearn.ParameterGrid": _sklearn,
    "ray.tune": _ray_tune,
    "hydra": _hydra,
}


def main() -> None:
    """Expand once and print the CPU seconds."""
    seeds = int(sys.argv[2])
    try:
        expand = TOOLS[sys.argv[1]](seeds)
    except ImportError:
        sys.exit(NOT_INSTALLED)
    begun = time.process_time()
    cells = expand()
    spent = time.process_time() - begun
    if cells != seeds * CELLS_PER_SEED:
        raise SystemExit(f"{Path(sys.argv[0]).name}: {sys.argv[1]} made {cells} cells")
    print(spent)


if __name__ == "__main__":
    main()
