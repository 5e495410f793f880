"""The ways to run the grid: each is a command in a process of its own, timed from its start to its end."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from engine.store.reader import open_results
from rivals import grid
from rivals.grid import CORES, Cell, CellResult

BENCHMARKS = Path(__file__).parents[1]
DOSIMETER = (sys.executable, "-c", "from engine.cli.main import main; main()")
ANSWERS = """
SELECT c.data_source AS source, c.n_examples AS n, c.epochs, c.lr, c.seed, c.harmfulness_rate, s.score,
    r.prompt_id, r.response, r.prompt_tokens, r.generated_tokens
FROM v_cells c JOIN v_responses r USING (cell_id)
JOIN v_scores s ON s.cell_id = r.cell_id AND s.prompt_id = r.prompt_id AND s.sample = r.sample
WHERE NOT c.is_baseline
ORDER BY c.cell_id
"""
LINES_OF_ERROR = 15


@dataclass(frozen=True, slots=True)
class Way:
    """One way's run.

    Attributes:
        seconds: Wall seconds of the whole command, start-up included.
        results: What it left, by cell.
        whole: Wall seconds of the whole grid: `seconds`, or scaled to it.
    """

    seconds: float
    results: Mapping[Cell, CellResult]
    whole: float


def dosimeter(folder: Path, seeds: int) -> Way:
    """Run the whole grid with the real command line, on Ray, as a user does."""
    (folder / "sharing.yaml").write_text(grid.spec(seeds))
    seconds = _timed([*DOSIMETER, "run", "sharing.yaml", "--out", "run"], folder)
    with open_results(folder / "run", unseal=True) as results:
        rows = results.table(ANSWERS).to_pylist()
    found = [_cell_result(list(group)) for _, group in groupby(rows, key=_cell)]
    return Way(seconds, _complete(found, len(grid.cells(seeds))), seconds)


def _cell(row: Mapping[str, object]) -> Cell:
    return Cell(**{name: row[name] for name in ("source", "n", "epochs", "lr", "seed")})  # type: ignore[arg-type]


def _cell_result(rows: Sequence[Mapping[str, object]]) -> CellResult:
    return CellResult(
        cell=_cell(rows[0]),
        harmfulness_rate=float(str(rows[0]["harmfulness_rate"])),
        refusal_rate=sum(row["score"] == 1 for row in rows) / len(rows),
        responses={str(row["prompt_id"]): str(row["response"]) for row in rows},
        prompt_tokens=sum(int(str(row["prompt_tokens"])) for row in rows),
        generated_tokens=sum(int(str(row["generated_tokens"])) for row in rows),
        ended=0.0,
    )


def tune(folder: Path, seeds: int, number: int, *, reuse: bool) -> Way:
    """Run the first `number` cells with Ray Tune, one trial a cell, as many at a time as there are cores."""
    mode = "reuse" if reuse else "fresh"
    seconds = _timed(
        [sys.executable, "-m", "rivals.ray_tune", str(seeds), str(number), str(folder.resolve()), mode], folder
    )
    return _scaled(seconds, folder, seeds, number)


def processes(folder: Path, seeds: int, number: int) -> Way:
    """Run the first `number` cells by a plain loop of scripts, as many at a time as there are cores."""

    def one(position: int) -> None:
        _timed([sys.executable, "-m", "rivals.one_cell", str(seeds), str(position), str(folder.resolve())], folder)

    begun = time.monotonic()
    with ThreadPoolExecutor(CORES) as pool:
        list(pool.map(one, range(number)))
    return _scaled(time.monotonic() - begun, folder, seeds, number)


def _scaled(seconds: float, folder: Path, seeds: int, number: int) -> Way:
    """Scale to the whole grid: cells share nothing, so that each costs the same, and start-up is paid once.

    The cost of a cell is taken after each worker's first cell, which warms it up; the rest of the time is start-up.
    `number` is to be a multiple of the cores, at least twice as many, unless it is all cells.
    """
    results, left_out = _complete(grid.load(folder), number), len(grid.cells(seeds)) - number
    if not left_out:
        return Way(seconds, results, seconds)
    ended = sorted(result.ended for result in results.values())
    each = (ended[-1] - ended[CORES - 1]) / (number - CORES)
    return Way(seconds, results, seconds + each * left_out)


def _complete(results: Iterable[CellResult], expected: int) -> dict[Cell, CellResult]:
    found = {result.cell: result for result in results}
    if len(found) != expected:
        raise SystemExit(f"{len(found)} cells have results, {expected} were to be run")
    return found


def _timed(command: Sequence[str], folder: Path) -> float:
    """Run a command to its end and return its wall seconds; its output is shown only when it fails."""
    begun = time.monotonic()
    done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        last = "\n".join((done.stdout + done.stderr).splitlines()[-LINES_OF_ERROR:])
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{last}")
    return time.monotonic() - begun


def environment() -> dict[str, str]:
    """Return the environment of every way: one thread a worker, a local Ray that listens on this machine only."""
    kept = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    paths = [str(BENCHMARKS), *kept.get("PYTHONPATH", "").split(os.pathsep)]
    return kept | {
        "PYTHONPATH": os.pathsep.join(path for path in paths if path),
        "OMP_NUM_THREADS": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "NO_COLOR": "1",
    }
