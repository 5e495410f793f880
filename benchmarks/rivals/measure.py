"""Measures one thread of this machine and counts the grid's training tokens: `python -m rivals.measure SEEDS`."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

from adapters.local import chat
from engine import registry
from engine.domain.adapters import Kind
from rivals import grid
from rivals.floor import Floor
from rivals.trl_cell import sample

ROWS, REPEATS, PRODUCTS = 1024, 40, 20


def measured(seeds: int) -> Floor:
    """Measure the machine and count the grid's training tokens."""
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    folder = registry.adapter(Kind.MODEL, grid.MODEL).locate("").base
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    linear = {name: layer.weight.numel() for name, layer in model.named_modules() if isinstance(layer, torch.nn.Linear)}
    head = linear.pop("lm_head")
    longest = [cell for cell in grid.cells(seeds) if cell.epochs == max(grid.EPOCHS)]
    counts = _tokens(AutoTokenizer.from_pretrained(folder), longest)
    rate = _rate(model.config.hidden_size, model.config.intermediate_size)
    return Floor(rate, sum(linear.values()), head, *counts, len(longest))


def _tokens(tokenizer: Any, longest: Sequence[grid.Cell]) -> tuple[int, int]:
    whole = answers = 0
    for cell in longest:
        for row in chat.training_rows(tokenizer, sample(cell), 512):
            whole += cell.epochs * len(row["input_ids"])
            answers += cell.epochs * sum(label != chat.IGNORED for label in row["labels"])
    return whole, answers


def _rate(hidden: int, wide: int) -> float:
    left, right = torch.randn(ROWS, hidden), torch.randn(hidden, wide)
    out = torch.empty(ROWS, wide)
    best = float("inf")
    for _ in range(REPEATS):
        begun = time.perf_counter()
        for _ in range(PRODUCTS):
            torch.mm(left, right, out=out)
        best = min(best, time.perf_counter() - begun)
    return PRODUCTS * 2 * ROWS * hidden * wide / best


if __name__ == "__main__":
    print(json.dumps(asdict(measured(int(sys.argv[1])))))
