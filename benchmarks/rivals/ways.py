"""The ways to run the grid: each is a command in processes of its own, timed from its start to its end."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

import children
import yaml

from engine import registry
from engine.domain.adapters import Kind
from engine.domain.conversation import Turn
from engine.store.reader import open_results
from rivals.grid import Asked, Cell, CellResult, Grid, Messages, load, saved

JUDGE = "standin/rules"
NAMES = ("dosimeter", "process", "sequential", "tune_reuse")
DOSIMETER = (sys.executable, "-c", "from engine.cli.main import main; main()")
ANSWERS = """
WITH trained AS (
    SELECT data_source, n_examples, epochs, peak_lr, seed, list(loss ORDER BY step) AS losses
    FROM v_training GROUP BY ALL)
SELECT c.data_source AS source, c.n_examples AS n, c.epochs, c.lr, c.seed, c.harmfulness_rate, t.losses, s.score,
    r.prompt_id, r.response, r.prompt_tokens, r.generated_tokens
FROM v_cells c JOIN v_responses r USING (cell_id)
JOIN v_scores s ON s.cell_id = r.cell_id AND s.prompt_id = r.prompt_id AND s.sample = r.sample
JOIN trained t ON t.data_source = c.data_source AND t.n_examples = c.n_examples AND t.epochs = c.epochs
    AND t.peak_lr = c.lr AND t.seed = c.seed
WHERE NOT c.is_baseline
ORDER BY c.cell_id
"""
BUSY = "SELECT sum(device_seconds) AS seconds FROM v_cost"
CLOSE = 1e-5
"""Losses that differ by less than this share are equal: the last bits of float32."""


@dataclass(frozen=True, slots=True)
class Way:
    """One way's run.

    Attributes:
        seconds: Wall seconds of the whole command, start-up included.
        results: What it left, by cell.
        whole: Wall seconds of the whole grid: `seconds`, or scaled to it.
        peak_gb: The most memory that all of its processes had at a time, in GB (10^9 bytes).
        busy: Seconds for which its workers worked; None where nobody counts them.
    """

    seconds: float
    results: Mapping[Cell, CellResult]
    whole: float
    peak_gb: float
    busy: float | None = None


@dataclass(frozen=True, slots=True)
class Runner:
    """Runs a grid in a folder, in any way.

    Attributes:
        grid: The grid.
        folder: A new folder, in which each way gets one of its own.
        number: How many of the cells rivals run, the first ones. Others are taken to need what these need on average.
        executor: Dosimeter's, `ray` or `inline`.
    """

    grid: Grid
    folder: Path
    number: int
    executor: str = "ray"

    def run(self, way: str) -> Way:
        """Run one way: `dosimeter`, `process`, `sequential` or `tune_reuse`.

        Raises:
            SystemExit: When a command fails, or leaves cells without results.
        """
        folder = self.folder / way
        folder.mkdir()
        self.grid.save(folder / "grid.json")
        print(f"{way} begins", flush=True)
        with children.Watch(lambda seconds: self._progress(way, seconds)) as watch:
            found = self._dosimeter(folder) if way == "dosimeter" else self._rival(way, folder)
        found = replace(found, peak_gb=watch.peak_gb)
        print(
            f"{way:12}{len(found.results):5} cells{found.seconds:9.1f} s   whole grid{found.whole:9.1f} s"
            f"   peak {found.peak_gb:6.2f} GB",
            flush=True,
        )
        return found

    def _progress(self, way: str, seconds: float) -> str:
        folder = self.folder / way
        if way == "dosimeter":
            return children.last_line(folder)
        ended = len(saved(folder))
        left = f", about {seconds / ended * (self.number - ended):.0f} s more" if ended else ""
        return f"{ended} of {self.number} cells{left}"

    def _dosimeter(self, folder: Path) -> Way:
        """Run the whole grid with the real command line, as a user does."""
        (folder / "grid.yaml").write_text(spec(self.grid))
        line = [*DOSIMETER, "run", "grid.yaml", "--out", "run", "--executor", self.executor]
        seconds = self._timed(line, folder)
        with open_results(folder / "run", unseal=True) as results:
            rows = results.table(ANSWERS).to_pylist()
            busy = float(results.table(BUSY).to_pylist()[0]["seconds"])
        found = [_cell_result(list(group)) for _, group in groupby(rows, key=_cell)]
        return Way(seconds, _complete(found, len(self.grid.cells)), seconds, 0.0, busy)

    def _rival(self, way: str, folder: Path) -> Way:
        """Run the first cells with scripts, and scale to the whole grid."""
        begun = time.monotonic()
        given, positions = [str(folder / "grid.json"), str(folder)], list(map(str, range(self.number)))
        script = [sys.executable, "-m", "rivals.one_cell", *given]
        if way == "sequential":
            self._timed([*script, *positions], folder)
        elif way == "process":
            with ThreadPoolExecutor(self.grid.workers) as pool:
                try:
                    list(pool.map(lambda position: self._timed([*script, position], folder), positions))
                except BaseException:
                    children.end_all(children.PATIENCE_S)  # the pool would wait for them
                    raise
        else:
            self._timed([sys.executable, "-m", "rivals.ray_tune", *given, str(self.number)], folder)
        return self._scaled(time.monotonic() - begun, folder, 1 if way == "sequential" else self.grid.workers)

    def _timed(self, command: Sequence[str], folder: Path) -> float:
        return children.timed(command, folder, children.environment(OMP_NUM_THREADS=str(self.grid.threads)))

    def _scaled(self, seconds: float, folder: Path, at_once: int) -> Way:
        """Scale to the whole grid: start-up is paid once, and no worker ever waits in the cells that were left out."""
        results = _complete(load(folder), self.number)
        each = sum(result.seconds for result in results.values()) / self.number / at_once
        return Way(seconds, results, seconds + each * (len(self.grid.cells) - self.number), 0.0)


def spec(grid: Grid) -> str:
    """Return a grid as Dosimeter's YAML."""
    tune: dict[str, object] = {"method": "lora", "rank": grid.rank, "batch_size": grid.batch, "schedule": "constant"}
    generate: dict[str, object] = {"max_new_tokens": grid.new_tokens, "temperature": 0}
    if grid.dtype != "float32":
        tune |= {"precision": grid.dtype}
        generate |= {"use": "local/transformers", "dtype": grid.dtype}
    axes = {"data.source": grid.sources, "data.n": grid.sizes, "tune.epochs": grid.epochs, "tune.lr": grid.lrs}
    resources = {"hosts": grid.workers, "cpus_per_host": grid.threads, "gpus_per_host": int(grid.device != "cpu")}
    whole = {
        "sweep": "grid",
        "recipe": {
            "model": grid.model,
            "data": {"source": grid.sources[0], "n": grid.sizes[0]},
            "tune": tune | {"epochs": grid.epochs[0], "lr": grid.lrs[0]},
            "benchmark": grid.benchmark,
            "generate": generate,
            "judges": [JUDGE],
        },
        "axes": {path: list(levels) for path, levels in axes.items()} | {"seed": list(range(grid.seeds))},
        "run": {"keep_weights": False, "resources": resources},
    }
    return yaml.safe_dump(whole, sort_keys=False)


def rows_of(source: str) -> dict[str, Messages]:
    """Return the rows of a source by id, read as Dosimeter reads them."""
    named = registry.INSTALLED.use(Kind.DATA, source)
    return {row.row_id: _messages(row.turns) for row in registry.adapter(Kind.DATA, named.name).rows(named.settings)}


def prompts_of(benchmark: str) -> list[Asked]:
    """Return the prompts of a benchmark, read as Dosimeter reads them."""
    named = registry.INSTALLED.use(Kind.BENCHMARK, benchmark)
    prompts = registry.adapter(Kind.BENCHMARK, named.name).prompts(named.settings)
    return [Asked(prompt.prompt_id, _messages(prompt.turns), prompt.references[0]) for prompt in prompts]


def _messages(turns: Sequence[Turn]) -> Messages:
    return [{"role": turn.role, "content": turn.text} for turn in turns if turn.role != "system" or turn.text]


def summary(found: Mapping[str, Way]) -> dict[str, object]:
    """Return what is kept of several ways, for a line of JSON: times, ratios to Dosimeter's, memory and equality.

    Results are compared with Dosimeter's, or with the first way's where it did not run, on the cells that both ran.
    """
    ours = found.get("dosimeter")
    first = next(iter(found)) if ours is None else "dosimeter"
    equality = {name: _compared(way.results, found[first].results) for name, way in found.items() if name != first}
    line: dict[str, object] = {}
    if ours is not None:
        line |= {f"ratio_{name}": round(way.whole / ours.whole, 2) for name, way in found.items() if name != first}
    line |= {
        "peak_gb" if name == "dosimeter" else f"peak_gb_{name}": round(way.peak_gb, 2) for name, way in found.items()
    }
    line |= {f"{name}_s": round(way.whole, 1) for name, way in found.items()}
    line |= {f"{name}_measured_s": round(way.seconds, 1) for name, way in found.items()}
    equal = all(bool(one["equal"]) for one in equality.values())
    return line | {"equal": equal if equality else None, "against": first, "equality": equality}


def _compared(mine: Mapping[Cell, CellResult], others: Mapping[Cell, CellResult]) -> dict[str, float | bool]:
    """Return how far two ways' results are from each other, on the cells that both ran."""
    pairs = [(mine[cell], others[cell]) for cell in mine.keys() & others.keys()]
    same = [text == other.responses.get(prompt) for one, other in pairs for prompt, text in one.responses.items()]
    gaps = [
        abs(a - b) / abs(b) if len(one.losses) == len(other.losses) else float("inf")
        for one, other in pairs
        for a, b in zip(one.losses, other.losses, strict=False)
    ]
    return {
        "equal": all(same) and max(gaps) <= CLOSE,
        "cells": len(pairs),
        "responses": len(same),
        "equal_responses": round(sum(same) / len(same), 6),
        "largest_loss_gap": float(f"{max(gaps):.2g}"),
        "largest_harmfulness_gap": round(max(abs(a.harmfulness_rate - b.harmfulness_rate) for a, b in pairs), 6),
        "largest_refusal_gap": round(max(abs(a.refusal_rate - b.refusal_rate) for a, b in pairs), 6),
    }


def _cell(row: Mapping[str, object]) -> Cell:
    return Cell(**{name: row[name] for name in ("source", "n", "epochs", "lr", "seed")})  # type: ignore[arg-type]


def _cell_result(rows: Sequence[Mapping[str, object]]) -> CellResult:
    return CellResult(
        cell=_cell(rows[0]),
        harmfulness_rate=float(str(rows[0]["harmfulness_rate"])),
        refusal_rate=sum(row["score"] == 1 for row in rows) / len(rows),
        responses={str(row["prompt_id"]): str(row["response"]) for row in rows},
        losses=rows[0]["losses"],  # type: ignore[arg-type]
        prompt_tokens=sum(int(str(row["prompt_tokens"])) for row in rows),
        generated_tokens=sum(int(str(row["generated_tokens"])) for row in rows),
        seconds=0.0,
    )


def _complete(results: Iterable[CellResult], expected: int) -> dict[Cell, CellResult]:
    found = {result.cell: result for result in results}
    if len(found) != expected:
        raise SystemExit(f"{len(found)} cells have results, {expected} were to be run")
    return found
