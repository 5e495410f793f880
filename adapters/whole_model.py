"""Models in memory, for the families that train, ask or edit them on this machine. Only workers read them: it starts torch."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

from adapters.model_folder import ADAPTER, adapter_tensors
from engine.domain.stage import ModelRef
from engine.ports import Context

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # workers never download: what a stage uses was pinned when planned

BASE_WEIGHTS = "base_layer"
"""In the names of the base's own weights, which PEFT writes beside adapters of embeddings."""


def set_up(context: Context) -> None:
    """Have torch compute as the worker is told to, and its friends keep notices of their own future to themselves."""
    import torch
    from transformers.utils import logging

    torch.set_num_threads(context.threads)
    torch.set_flush_denormal(True)  # tiny activations would otherwise slow CPUs down a hundredfold
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    warnings.filterwarnings("ignore", r".* is deprecated and will be removed", FutureWarning)


def read_model(folder: str | Path, dtype: str, device: str) -> Any:
    """Return the model in a folder, in evaluation mode.

    Args:
        folder: A folder in the Hugging Face layout.
        dtype: `float32` or `bfloat16`.
        device: A torch device.
    """
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=getattr(torch, dtype), use_safetensors=True, trust_remote_code=False
    )
    return model.to(device).eval()


def read_whole(model: ModelRef, dtype: str, device: str) -> Any:
    """Return a model with all of its layers: the last weights that are whole, and the adapters after them merged into these.

    Args:
        model: The base and its layers.
        dtype: `float32` or `bfloat16`.
        device: A torch device.

    Raises:
        ValueError: When an adapter cannot be merged.
    """
    folders = [Path(folder) for folder in (model.base, *model.layers)]
    first = max(at for at, folder in enumerate(folders) if at == 0 or not (folder / ADAPTER).is_file())
    whole = read_model(folders[first], dtype, device)
    for folder in folders[first + 1 :]:
        whole = _merged(whole, folder)
    return whole.eval()


def _merged(model: Any, folder: Path) -> Any:
    """Put an adapter into a model's weights."""
    from peft import PeftModel

    if model.config.tie_word_embeddings and any(BASE_WEIGHTS in name for name in adapter_tensors(folder)):
        raise ValueError(
            f"{folder.name} adapts embeddings that are the output layer as well: merged, it would be another model"
        )
    return PeftModel.from_pretrained(model, folder).merge_and_unload()
