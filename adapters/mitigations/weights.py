"""Weights as mitigations edit them: what lies on top of the starting model, LoRA's factors, and whole models on the CPU."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from engine.domain.stage import ModelRef
from engine.ports import WeightsEdit

LORA_CONFIG = "adapter_config.json"
LORA_WEIGHTS = "adapter_model.safetensors"
_A, _B = ("lora_A", "lora_embedding_A"), ("lora_B", "lora_embedding_B")
_FROZEN = "base_layer"
"""In the names of the base's own weights, which PEFT writes beside adapters of embeddings."""

_OF_THE_BASE = (".json", ".jinja", ".model")
_OF_THE_WEIGHTS = ("config.json", "model.safetensors.index.json")


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
        message = f"the weights of `{model.base}` are not on this machine, so that they cannot be edited"
        raise ValueError(message)
    return [Path(layer) for layer in model.layers[deep:]]


def is_lora(folder: Path) -> bool:
    """Tell whether a folder holds an adapter that is A and B alone, so that what it adds to the weights is linear in B."""
    parts = _names(folder)
    return bool(parts) and all(not {*_A, *_B, _FROZEN}.isdisjoint(name) for name in parts)


def _names(folder: Path) -> list[list[str]]:
    """Return the names of an adapter's tensors, each in its parts; none of what is no adapter."""
    from safetensors import safe_open

    if not (folder / LORA_CONFIG).is_file() or not (folder / LORA_WEIGHTS).is_file():
        return []
    with safe_open(folder / LORA_WEIGHTS, framework="pt") as tensors:
        return [name.split(".") for name in tensors.keys()]  # noqa: SIM118 - it is no mapping


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
        for name, weight in load_file(folder / LORA_WEIGHTS).items()
    }
    shutil.copyfile(folder / LORA_CONFIG, to / LORA_CONFIG)
    save_file(scaled, to / LORA_WEIGHTS, metadata={"format": "pt"})


def interpolate(edit: WeightsEdit, factor: float, threads: int) -> None:
    """Write whole weights, `start + factor * (model - start)`, as a folder that loads by itself.

    Args:
        edit: The two models, and where to write.
        factor: >= 0; 0 and 1 give the ends, bit for bit.
        threads: CPU threads, >= 1.

    Raises:
        ValueError: The two models have other weights, or an adapter cannot be merged.
    """
    import torch

    torch.set_num_threads(threads)
    with _quiet():
        model, start = _whole(edit.model), dict(_whole(edit.start).named_parameters())
        for name, weight in model.named_parameters():
            if name not in start or start[name].shape != weight.shape:
                message = f"the starting model has no weight `{name}` of the shape {tuple(weight.shape)}"
                raise ValueError(message)
            torch.lerp(start[name].data, weight.data, factor, out=weight.data)
        _save(model, Path(edit.model.base), edit.folder)


def _whole(ref: ModelRef) -> Any:
    """Load a model in float32 on the CPU, its adapters merged into the weights."""
    import torch
    from transformers import AutoModelForCausalLM

    folders = [Path(folder) for folder in (ref.base, *ref.layers)]
    first = max(at for at, folder in enumerate(folders) if at == 0 or not (folder / LORA_CONFIG).is_file())
    model = AutoModelForCausalLM.from_pretrained(
        folders[first], dtype=torch.float32, use_safetensors=True, trust_remote_code=False
    )
    for folder in folders[first + 1 :]:
        model = _merged(model, folder)
    return model


def _merged(model: Any, folder: Path) -> Any:
    """Put an adapter into a model's weights."""
    from peft import PeftModel

    if model.config.tie_word_embeddings and any(_FROZEN in name for name in _names(folder)):
        message = (
            f"{folder.name} adapts embeddings that are the output layer as well: merged, it would be another model"
        )
        raise ValueError(message)
    return PeftModel.from_pretrained(model, folder).merge_and_unload()


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the libraries' bars and notices of their own future to themselves: a user can do nothing about them."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield


def _save(model: Any, base: Path, folder: Path) -> None:
    """Write the weights and their config, and beside them the base's tokenizer and generation settings, byte for byte."""
    from transformers import GenerationConfig

    model.generation_config = GenerationConfig()  # the base's own may not pass the check on saving; its file follows
    model.save_pretrained(folder)
    for path in base.iterdir():
        if path.suffix in _OF_THE_BASE and path.name not in _OF_THE_WEIGHTS:
            shutil.copyfile(path, folder / path.name)
