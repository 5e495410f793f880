"""A base model in memory, and tuned weights on it while they answer. The base never changes; tuned weights are read from disk."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from adapters import model_folder
from adapters.local import lora
from engine.domain.stage import ModelRef
from engine.ports import Context

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # workers never download: what a stage uses was pinned when planned


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the libraries' notices of their own future to themselves: a user can do nothing about them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield


def read_model(folder: str, dtype: str, device: str) -> Any:
    """Return the model in a folder, in evaluation mode.

    Args:
        folder: A folder in the Hugging Face layout.
        dtype: `float32` or `bfloat16`.
        device: `cpu` or `cuda:0`.
    """
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=getattr(torch, dtype), use_safetensors=True, trust_remote_code=False
    )
    return model.to(device).eval()


def read_tokenizer(folder: str) -> Any:
    """Return the tokenizer in a folder; it pads on the left."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left", trust_remote_code=False)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def read_whole(model: ModelRef, dtype: str, device: str) -> Any:
    """Return a model with all of its layers: the last weights that are whole, and the adapters after them merged into these.

    Args:
        model: The base and its layers.
        dtype: `float32` or `bfloat16`.
        device: A torch device.
    """
    folders = [Path(folder) for folder in (model.base, *model.layers)]
    first = max(at for at, folder in enumerate(folders) if at == 0 or not (folder / lora.CONFIG).is_file())
    whole = read_model(str(folders[first]), dtype, device)
    for folder in folders[first + 1 :]:
        from peft import PeftModel

        whole = PeftModel.from_pretrained(whole, folder).merge_and_unload()
    return whole.eval()


class LoadedModel:
    """A model and its tokenizer, kept warm by a worker: what runs begin with, or what the last layer lies on.

    Attributes:
        tokenizer: The tokenizer.
        base: The weights, in evaluation mode.
        layers: What the model's layers are, by content.

    Args:
        model: The model.
        layers: What its layers are, by content.
        dtype: `float32` or `bfloat16`.
        device: A torch device.
    """

    def __init__(self, model: ModelRef, layers: Sequence[str], dtype: str, device: str) -> None:
        """Load the tokenizer and the weights."""
        self.layers = layers
        self._dtype, self._device = dtype, device
        self.tokenizer = read_tokenizer(model.base)
        self.base = read_whole(model, dtype, device)

    @contextmanager
    def tuned(self, weights: ModelRef) -> Iterator[Any]:
        """Yield the model that `weights` names: this one, with a LoRA adapter on it while the block runs, or one of its own.

        Tuned weights are read from disk each time. So what answers is what lies there, whoever wrote it; and reading a file
        takes no longer than finding out whether it is still the one that was read before.
        """
        if weights.tuned is None:
            yield self.base
            return
        folder = Path(weights.tuned)
        if (adapter := lora.read(folder, self._device)) is not None:
            from adapters.local.stacked import stacked

            with stacked(self.base, [adapter]) as model:
                yield model
        elif (folder / lora.CONFIG).is_file():  # PEFT knows what it is, and gets a base of its own to put it on
            from peft import PeftModel

            yield PeftModel.from_pretrained(read_whole(weights.below, self._dtype, self._device), folder).eval()
        else:
            yield read_model(weights.tuned, self._dtype, self._device)


def loaded(model: ModelRef, dtype: str, context: Context) -> LoadedModel:
    """Return a model with all of its layers, loading it unless the worker holds it already.

    Layers are known by their content, not by their place: what is in memory serves only while the files are the same bytes.
    """
    set_up(context)
    layers = contents(model)
    key = f"{model.base} {layers} {dtype} {context.device}"
    return context.warm.get("base", key, lambda: LoadedModel(model, layers, dtype, context.device))


def contents(model: ModelRef) -> list[str]:
    """Return the hash of every layer's files, read now; a base is pinned by the plan. It takes no longer than loading them."""
    return [model_folder.content(Path(layer)) for layer in model.layers]


def set_up(context: Context) -> None:
    """Have torch compute as the worker is told to."""
    import torch

    torch.set_num_threads(context.threads)
    torch.set_flush_denormal(True)  # tiny activations would otherwise slow CPUs down a hundredfold
