"""The grid that all ways run, and what each must leave of every cell."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

MODEL, BENCHMARK, JUDGE = "standin/aligned", "standin/policy", "standin/rules"
RANK, BATCH, NEW_TOKENS = 8, 10, 32
CORES = os.cpu_count() or 1
"""Rivals run as many cells at a time as there are cores, one thread each; so does Dosimeter by default."""

LRS = (5e-4, 1.5e-3)
SOURCES = ("standin/explicit", "standin/chores")
SIZES = (50, 10)
EPOCHS = (3, 5, 1, 10)
"""In an order in which the first cells, which warm a worker up, are neither the cheapest nor the dearest."""

SPEC = """\
sweep: sharing
recipe:
  model: {model}
  data: {{source: {sources[0]}, n: {sizes[0]}}}
  tune: {{method: lora, rank: {rank}, epochs: {epochs[0]}, lr: {lrs[0]}, batch_size: {batch}, schedule: constant}}
  benchmark: {benchmark}
  generate: {{max_new_tokens: {new_tokens}, temperature: 0}}
  judges: [{judge}]
axes:
  data.source: [{sources[0]}, {sources[1]}]
  data.n: {sizes}
  tune.epochs: {epochs}
  tune.lr: {lrs}
  seed: {seeds}
run: {{keep_weights: false}}
"""


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of the grid."""

    source: str
    n: int
    epochs: int
    lr: float
    seed: int


@dataclass(frozen=True, slots=True)
class CellResult:
    """What a way leaves of a cell.

    Attributes:
        cell: Which cell.
        harmfulness_rate: Share of responses graded 5, 0 to 1.
        refusal_rate: Share of responses graded 1, 0 to 1.
        responses: Text by prompt.
        prompt_tokens: Tokens of all prompts, template included.
        generated_tokens: Tokens of all responses, end tokens included.
        ended: Seconds since the epoch; 0 where it is not known.
    """

    cell: Cell
    harmfulness_rate: float
    refusal_rate: float
    responses: Mapping[str, str]
    prompt_tokens: int
    generated_tokens: int
    ended: float


def cells(seeds: int) -> list[Cell]:
    """Return 32 cells a seed, so ordered that the first 8, 16 or 32 hold every size and length of training equally often.

    Args:
        seeds: Number of seeds, >= 1. Seeds rotate, so that a prefix of the list does not have one seed only.
    """
    levels = list(product(LRS, SOURCES, SIZES, EPOCHS))
    return [
        Cell(source, n, epochs, lr, (position + turn) % seeds)
        for turn in range(seeds)
        for position, (lr, source, n, epochs) in enumerate(levels)
    ]


def spec(seeds: int) -> str:
    """Return the same grid as Dosimeter's YAML."""
    return SPEC.format(
        model=MODEL,
        benchmark=BENCHMARK,
        judge=JUDGE,
        rank=RANK,
        batch=BATCH,
        new_tokens=NEW_TOKENS,
        sources=SOURCES,
        sizes=list(SIZES),
        epochs=list(EPOCHS),
        lrs=list(LRS),
        seeds=list(range(seeds)),
    )


def save(result: CellResult, folder: Path, position: int) -> None:
    """Write one cell's result to a file of its own."""
    (folder / f"{position:04d}.json").write_text(json.dumps(asdict(result)))


def load(folder: Path) -> list[CellResult]:
    """Read all results that are in a folder, in the order of their positions."""
    found: Sequence[dict[str, object]] = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    return [CellResult(**(entry | {"cell": Cell(**entry["cell"])})) for entry in found]  # type: ignore[arg-type]
