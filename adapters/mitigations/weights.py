"""Weights as mitigations edit them: what lies on top of the starting model, LoRA's factors, and whole models on the CPU."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from adapters.model_folder import ADAPTER, ADAPTER_WEIGHTS, INDEX, adapter_tensors
from adapters.whole_model import BASE_WEIGHTS, read_plain, set_up
from engine.ports import Context, WeightsEdit

_A, _B = ("lora_A", "lora_embedding_A"), ("lora_B", "lora_embedding_B")
_OF_THE_BASE = (".json", ".jinja", ".model")
_OF_THE_WEIGHTS = ("config.json", INDEX)


def added(edit: WeightsEdit) -> list[Path]:
    """Return the folders of the layers that the model has beyond its starting model, in order.

    Raises:
        ValueError: There are none, the model is not the starting model with something on top, or it is not on this machine.
    """
    model, start = edit.model, edit.start
    deep = len(start.layers)
    if (model.base, model.layers[:deep]) != (start.base, start.layers) or len(model.layers) == deep:
        raise ValueError("the model is not its starting model with something tuned on top of it")
    if not Path(model.base).is_dir():
        raise ValueError(f"the weights of `{model.base}` are not on this machine, so that they cannot be edited")
    return [Path(layer) for layer in model.layers[deep:]]


def is_lora(folder: Path) -> bool:
    """Tell whether a folder holds an adapter that is A and B alone, so that what it adds to the weights is linear in B."""
    names = adapter_tensors(folder)
    return bool(names) and all(not {*_A, *_B, BASE_WEIGHTS}.isdisjoint(name) for name in names)


def scale_lora(folder: Path, factor: float, to: Path) -> None:
    """Write the adapter with `factor` times what it adds to the weights.

    Args:
        folder: An adapter, `is_lora`.
        factor: >= 0.
        to: An existing folder.
    """
    from safetensors.torch import load_file, save_file

    scaled = {
        name: weight.float() * factor if any(part in _B for part in name.split(".")) else weight
        for name, weight in load_file(folder / ADAPTER_WEIGHTS).items()
    }
    shutil.copyfile(folder / ADAPTER, to / ADAPTER)
    save_file(scaled, to / ADAPTER_WEIGHTS, metadata={"format": "pt"})


def interpolate(edit: WeightsEdit, factor: float, context: Context) -> None:
    """Write whole weights, `start + factor * (model - start)`, as a folder that loads by itself.

    Args:
        edit: The two models, and where to write.
        factor: >= 0; 0 and 1 give the ends, bit for bit.
        context: The worker.

    Raises:
        ValueError: The two models have other weights, or an adapter cannot be merged.
    """
    import torch

    set_up(context)
    model, start = (read_plain(ref, "float32", "cpu") for ref in (edit.model, edit.start))
    origin = dict(start.named_parameters())
    for name, weight in model.named_parameters():
        if name not in origin or origin[name].shape != weight.shape:
            raise ValueError(f"the starting model has no weight `{name}` of the shape {tuple(weight.shape)}")
        torch.lerp(origin[name].data, weight.data, factor, out=weight.data)
    _save(model, Path(edit.model.base), edit.folder)


def _save(model: Any, base: Path, folder: Path) -> None:
    """Write the weights and their config, and beside them the base's tokenizer and generation settings, byte for byte."""
    from transformers import GenerationConfig

    model.generation_config = GenerationConfig()  # the base's own may not pass the check on saving; its file follows
    model.save_pretrained(folder)
    for path in base.iterdir():
        if path.suffix in _OF_THE_BASE and path.name not in _OF_THE_WEIGHTS:
            shutil.copyfile(path, folder / path.name)
