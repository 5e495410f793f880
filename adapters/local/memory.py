"""What training and asking a model take of memory, from its config.json and the headers of its weights: before it is taken.

Sizes are those of a decoder with gated MLPs, which chat models have; `tests/unit/adapters/local/test_memory.py` and
`docs/concepts/memory.md` say how far they are from what was measured. All are in bytes. Nothing here starts torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from adapters import model_folder
from adapters.local.settings import SftSettings

BYTES: Mapping[str, int] = {"float32": 4, "bfloat16": 2}

PROCESS = {"cpu": 700_000_000, "cuda": 900_000_000}
"""What a worker takes with its libraries and no model, by kind of device: of main memory, or of a GPU's for kernels. CPU: measured
2026-12-01 with torch 2.13; GPU: an assumption."""

LOGIT_BYTES = 2**28
"""Logits of an answer that there are at a time, in float32; the loss needs `LOGIT_COPIES` of them."""

LOGIT_COPIES = 3

PASS_FLOP = 1e10
"""Least work of a forward and a backward pass on a CPU that is worth to go through a batch by: below, several rows go together, because
what a pass costs beside its products would be felt. From about 25 M weights on, rows go one by one, without padding."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What a model's sizes are.

    Attributes:
        weights: Number of weights.
        matrices: Inputs and outputs of every linear layer but the output layer, summed: what a LoRA adapter of rank 1 has.
        layers: Number of layers.
        hidden: Width.
        inner: Width of the MLP, of all experts that a token sees.
        keys: Keys and values of one token in one layer, in numbers.
        vocabulary: Tokens that the output layer knows.
    """

    weights: int
    matrices: int
    layers: int
    hidden: int
    inner: int
    keys: int
    vocabulary: int


def shape(folder: Path) -> Shape:
    """Return the sizes of the model in a folder.

    Raises:
        OSError: There is none.
        ValueError: Its config.json is not that of a language model that we can size.
    """
    return _shape(folder, (folder / "config.json").stat().st_mtime_ns)


@cache
def _shape(folder: Path, stamp: int) -> Shape:
    del stamp  # only makes a changed file a new question
    whole = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config: Mapping[str, Any] = whole.get("text_config") or whole

    def size(*names: str) -> int:
        found = next((config[name] for name in names if isinstance(config.get(name), int)), None)
        if found is None:
            raise ValueError(f"{folder / 'config.json'} has no `{names[0]}`: its memory cannot be told")
        return int(found)

    hidden, layers = size("hidden_size", "n_embd", "d_model"), size("num_hidden_layers", "n_layer", "num_layers")
    heads = size("num_attention_heads", "n_head")
    inner = next(
        (int(config[name]) for name in ("intermediate_size", "n_inner", "ffn_dim") if config.get(name)), 4 * hidden
    )
    pairs = int(config.get("num_key_value_heads") or heads)
    width = int(config.get("head_dim") or hidden // heads)
    tensors = model_folder.tensors(folder)
    matrices = sum(
        sum(found)
        for name, found in tensors.items()
        if len(found) == len(("out", "in")) and hidden in found and not _is_vocabulary(name)
    )
    return Shape(
        weights=model_folder.parameters(folder),
        matrices=matrices,
        layers=layers,
        hidden=hidden,
        inner=inner * int(config.get("num_experts_per_tok") or 1),
        keys=2 * pairs * width,
        vocabulary=size("vocab_size"),
    )


def rows_at_once(settings: SftSettings, weights: int, longest: int, device: str) -> int:
    """Return how many rows of a batch go through the model at once, where memory does not say less; >= 1.

    On a CPU it depends on the model and on the rows alone, and so do the bits of what comes out.

    Args:
        settings: How it is tuned.
        weights: Number of weights of the model.
        longest: Tokens of the longest row.
        device: Kind of device.
    """
    if device != "cpu":
        return settings.batch_size
    enough = PASS_FLOP / (4 * max(1, weights) * max(1, longest))
    return max(1, min(settings.batch_size, int(enough)))


def _is_vocabulary(name: str) -> bool:
    return any(part in name for part in ("embed", "lm_head", "wte", "wpe", "output.weight"))
