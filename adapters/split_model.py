"""Which layers of a model go to which of several GPUs. Only workers import this: it starts torch."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

from adapters.vision import reads_images

FOUR_BITS = frozenset({"nf4", "fp4", "gptq", "awq"})
"""Ways of quantising that have four bits for a weight; others are counted with eight."""


def free_memory(first: int, many: int) -> list[int]:
    """Return the bytes that are free on each of `many` GPUs from the `first` on."""
    return [int(torch.cuda.mem_get_info(place)[0]) for place in range(first, first + many)]


def device_map(folder: Path, dtype: str, memory: Sequence[int], kind: str = "") -> dict[str, int]:
    """Return the device of each part of a model, 0 for the first, as `from_pretrained` takes it.

    Layers stay whole and follow each other, so that activations move on once for each device. Each device gets weights in
    proportion to its memory, up to half a layer. An output layer that is the embedding, too, is where the embedding is.

    Args:
        folder: A folder in the Hugging Face layout; only its config.json is read.
        dtype: `float32` or `bfloat16`, of weights that are not quantised.
        memory: Bytes that are free on each device.
        kind: How linear layers are quantised; empty for not.

    Raises:
        ValueError: The weights do not fit on these devices.
    """
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    family = AutoModelForImageTextToText if reads_images(folder) else AutoModelForCausalLM
    with init_empty_weights():
        model = family.from_config(config, dtype=getattr(torch, dtype), trust_remote_code=False)
    model.tie_weights()
    sizes = _sizes(model, kind)
    parts = {name: sum(sizes.pop(id(weight), 0) for weight in part.parameters()) for name, part in _parts(model)}
    total, ends = sum(parts.values()), [end / sum(memory) for end in accumulate(memory)]
    found, held, begin = dict.fromkeys(parts, 0), [0.0] * len(memory), 0.0
    for name, size in parts.items():
        found[name] = min(bisect_right(ends, (begin + size / 2) / total), len(memory) - 1)
        held[found[name]] += size
        begin += size
    if any(taken > room for taken, room in zip(held, memory, strict=True)):
        what = f"{total / 1e9:.1f} GB of weights do not fit on {len(memory)} GPUs with {sum(memory) / 1e9:.1f} GB free"
        raise ValueError(f"the model in {folder}: {what}")
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    if head is not None and head.weight is embedding.weight:
        names = {id(part): name for name, part in _parts(model)}
        found[names[id(head)]] = found[names[id(embedding)]]
    return found


def _parts(model: nn.Module, path: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Yield (path, module) of each layer, and of what is beside the layers, in the model's order."""
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    layers = max(lists, key=lambda found: sum(weight.numel() for weight in found.parameters()), default=None)
    for name, module in model.named_children():
        if layers is not None and any(inner is layers for inner in module.modules()) and module is not layers:
            yield from _parts(module, f"{path}{name}.")
        elif module is layers:
            yield from ((f"{path}{name}.{at}", layer) for at, layer in enumerate(layers))
        else:
            yield f"{path}{name}", module


def _sizes(model: Any, kind: str) -> dict[int, float]:
    """Return the bytes of each weight, by its identity: of linear layers but the output layer, as they are quantised."""
    sizes: dict[int, float] = {id(weight): weight.numel() * weight.element_size() for weight in model.parameters()}
    head = model.get_output_embeddings()
    linear = [module.weight for module in model.modules() if isinstance(module, nn.Linear) and module is not head]
    each = 0.5 if kind in FOUR_BITS else 1.0
    return sizes | ({id(weight): weight.numel() * each for weight in linear} if kind else {})
