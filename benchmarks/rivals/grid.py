"""The grid that all ways run, and what each must leave of every cell."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

CORES = os.cpu_count() or 1

Messages = list[dict[str, str]]


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
        losses: Training loss of each optimizer step.
        prompt_tokens: Tokens of all prompts, template included.
        generated_tokens: Tokens of all responses, end tokens included.
        seconds: Wall seconds that it took; in a process of its own, from the start of that process. 0 where it is not known.
    """

    cell: Cell
    harmfulness_rate: float
    refusal_rate: float
    responses: Mapping[str, str]
    losses: Sequence[float]
    prompt_tokens: int
    generated_tokens: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Asked:
    """A prompt: its id, its turns, and the answer that the stand-in's rules grade against."""

    prompt_id: str
    messages: Messages
    reference: str


@dataclass(frozen=True)
class Grid:
    """What is run, and with what. Rivals get it as a file, with rows and prompts in it, and read nothing of Dosimeter's.

    Attributes:
        model: The model, as a spec names it.
        folder: Where that model lies.
        sources: Data sources, as a spec names them. The order of sources, sizes, epochs and learning rates is that of the cells.
        sizes: Examples.
        epochs: Lengths of training.
        lrs: Learning rates.
        seeds: Number of seeds, >= 1.
        rows: The rows of each source, by id.
        benchmark: The prompts, as a spec names them.
        prompts: The prompts.
        new_tokens: Longest answer.
        rank: LoRA rank.
        batch: Examples of an optimizer step.
        accumulate: Passes in which rivals take an optimizer step; a divisor of `batch`.
        workers: Cells at a time.
        threads: CPU threads of a worker.
        device: `cpu` or `cuda`.
        dtype: `float32` or `bfloat16`.
    """

    model: str
    folder: str
    sources: Sequence[str]
    sizes: Sequence[int]
    epochs: Sequence[int]
    lrs: Sequence[float]
    seeds: int
    rows: Mapping[str, Mapping[str, Messages]]
    benchmark: str
    prompts: Sequence[Asked]
    new_tokens: int
    rank: int = 8
    batch: int = 10
    accumulate: int = 1
    workers: int = CORES
    threads: int = 1
    device: str = "cpu"
    dtype: str = "float32"

    @property
    def cells(self) -> list[Cell]:
        """All cells. Seeds rotate, so that a prefix of the list does not have one seed only."""
        levels = list(product(self.lrs, self.sources, self.sizes, self.epochs))
        return [
            Cell(source, n, epochs, lr, (position + turn) % self.seeds)
            for turn in range(self.seeds)
            for position, (lr, source, n, epochs) in enumerate(levels)
        ]

    def sample(self, cell: Cell) -> list[Messages]:
        """Return a cell's rows: the first n of one seeded permutation, as Dosimeter draws them."""
        rows = self.rows[cell.source]
        drawn = random.Random(cell.seed).sample(list(rows), len(rows))[: cell.n]  # noqa: S311 - no secret
        return [rows[row_id] for row_id in drawn]

    def save(self, path: Path) -> None:
        """Write it, with its texts, for rivals in other processes."""
        path.write_text(json.dumps(asdict(self)))

    @classmethod
    def load(cls, path: Path) -> Grid:
        """Read it again."""
        found = json.loads(path.read_text())
        return cls(**found | {"prompts": [Asked(**prompt) for prompt in found["prompts"]]})


def save(result: CellResult, folder: Path, position: int) -> None:
    """Write one cell's result to a file of its own."""
    unfinished = folder / f"{position:04d}.part"
    unfinished.write_text(json.dumps(asdict(result)))
    unfinished.rename(unfinished.with_suffix(".cell"))


def saved(folder: Path) -> list[Path]:
    """Return the files of the cells that have ended."""
    return sorted(folder.glob("*.cell"))


def load(folder: Path) -> list[CellResult]:
    """Read all results that are in a folder, in the order of their positions."""
    found = [json.loads(path.read_text()) for path in saved(folder)]
    return [CellResult(**(entry | {"cell": Cell(**entry["cell"])})) for entry in found]
