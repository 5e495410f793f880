"""Which layers of a model go to which of several GPUs. Only workers import this: it starts torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import infer_auto_device_map, init_empty_weights
from accelerate.utils import CustomDtype, get_balanced_memory
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

FOUR_BITS = frozenset({"nf4", "fp4", "gptq", "awq"})
"""Ways of quantising whose weights are counted as four bits; of any other, as eight."""


def free_memory(first: int, many: int) -> list[int]:
    """Return the bytes that are free on each of `many` GPUs from the `first` on."""
    return [int(torch.cuda.mem_get_info(place)[0]) for place in range(first, first + many)]


def device_map(folder: Path, dtype: str, memory: Sequence[int], kind: str = "") -> dict[str, int]:
    """Return the device of each part of a model, 0 for the first: no layer is split, and each device has about as much.

    Layers follow each other, so that activations move on once for each device. An output layer that is the embedding, too, is
    where the embedding is.

    Args:
        folder: A folder in the Hugging Face layout; only its config.json is read.
        dtype: `float32` or `bfloat16`, of weights that are not quantised.
        memory: Bytes that are free on each device.
        kind: How linear layers are quantised; empty for not.

    Raises:
        ValueError: The weights do not fit on these devices.
    """
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    with init_empty_weights():
        model = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype), trust_remote_code=False)
    model.tie_weights()
    sizes: dict[str, Any] = {"dtype": getattr(torch, dtype), "no_split_module_classes": _layers(model)}
    if kind:
        plain = dict.fromkeys(_not_quantised(model), sizes["dtype"])
        sizes |= {"dtype": CustomDtype.INT4 if kind in FOUR_BITS else torch.int8, "special_dtypes": plain}
    limits = dict(enumerate(memory))
    found = infer_auto_device_map(model, get_balanced_memory(model, limits, **sizes), **sizes)
    if not set(found.values()) <= set(limits):
        raise ValueError(
            f"the model in {folder} does not fit on {len(memory)} GPUs with {sum(memory) / 1e9:.1f} GB free"
        )
    return {name: int(place) for name, place in found.items()}


def _layers(model: nn.Module) -> list[str]:
    """Return the classes of a model's layers: what the list with the most weights holds."""
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    largest = max(lists, key=lambda found: sum(weight.numel() for weight in found.parameters()), default=[])
    return sorted({type(layer).__name__ for layer in largest})


def _not_quantised(model: Any) -> list[str]:
    """Return the names of the weights that stay as they are: of the embedding, the output layer and the norms."""
    ends = {id(end) for end in (model.get_input_embeddings(), model.get_output_embeddings())}
    return [
        f"{path}.{name}"
        for path, module in model.named_modules()
        if id(module) in ends or not isinstance(module, nn.Linear)
        for name, _ in module.named_parameters(recurse=False)
    ]
