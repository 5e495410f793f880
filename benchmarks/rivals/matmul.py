"""How quick this machine is at a model's matrix products: `python -m rivals.matmul GRID RESULT`.

It writes FLOP per second to RESULT: those of all linear layers and the output layer, each as often as the model has it, on rows
enough to fill any of them. To keep every core busy, as many of these run at a time as there are workers.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from pathlib import Path

import torch

from rivals.grid import Grid

TOKENS = 1024
SECONDS, TURNS = 1.0, 4
"""The least, for so many turns through all shapes; the median of each shape counts."""

Shape = tuple[int, int, int]


def shapes(folder: str) -> list[Shape]:
    """Return (inputs, outputs, times) of a Llama's matrices, from its config.json."""
    config = json.loads((Path(folder) / "config.json").read_text())
    hidden, inner, layers = config["hidden_size"], config["intermediate_size"], config["num_hidden_layers"]
    keys = hidden * config["num_key_value_heads"] // config["num_attention_heads"]
    return [
        (hidden, hidden, 2 * layers),
        (hidden, keys, 2 * layers),
        (hidden, inner, 2 * layers),
        (inner, hidden, layers),
        (hidden, config["vocab_size"], 1),
    ]


def rate(grid: Grid) -> float:
    """Return FLOP per second of one worker."""
    torch.set_num_threads(grid.threads)
    made = {"dtype": getattr(torch, grid.dtype), "device": grid.device}
    matrices = [
        (
            torch.randn(TOKENS, inputs, **made),
            torch.randn(inputs, outputs, **made),
            torch.empty(TOKENS, outputs, **made),
        )
        for inputs, outputs, _ in shapes(grid.folder)
    ]
    taken: list[list[float]] = [[] for _ in matrices]
    begun = time.perf_counter()
    while len(taken[-1]) <= TURNS or time.perf_counter() - begun < SECONDS:
        for (rows, matrix, out), seconds in zip(matrices, taken, strict=True):
            since = _now(grid.device)
            torch.mm(rows, matrix, out=out)
            seconds.append(_now(grid.device) - since)
    each = [statistics.median(seconds[1:]) for seconds in taken]  # the first turn warms up
    whole = shapes(grid.folder)
    flop = sum(2 * TOKENS * inputs * outputs * times for inputs, outputs, times in whole)
    return flop / sum(seconds * times for seconds, (_, _, times) in zip(each, whole, strict=True))


def _now(device: str) -> float:
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter()


def main() -> None:
    """Measure and write."""
    Path(sys.argv[2]).write_text(str(rate(Grid.load(Path(sys.argv[1])))))


if __name__ == "__main__":
    main()
