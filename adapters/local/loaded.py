"""A base model in memory, and at most one set of tuned weights on it. The base is restored bit for bit."""

from __future__ import annotations

import atexit
import gc
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from engine.domain.stage import LocalWeights
from engine.ports import Context

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # hosts never download: what a stage uses was pinned when planned

ADAPTER_CONFIG = "adapter_config.json"


class LoadedModel:
    """A base model and its tokenizer, kept warm by a host.

    LoRA adapters are attached to the base and taken off again (its own weights never change); fully tuned weights
    live in a model of their own.

    Args:
        folder: Folder of the base model.
        dtype: `float32` or `bfloat16`.
        device: `cpu` or `cuda:0`.
    """

    def __init__(self, folder: str, dtype: str, device: str) -> None:
        """Load the tokenizer and the weights."""
        from transformers import AutoTokenizer
        from transformers.utils import logging

        logging.set_verbosity_error()
        logging.disable_progress_bar()
        self._folder, self._dtype, self._device = folder, dtype, device
        self.tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left", trust_remote_code=False)
        if self.tokenizer.pad_token_id is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        self.base = self._read(folder)
        self._tuned: tuple[str, Any] | None = None
        _settle_garbage()

    def _read(self, folder: str) -> Any:
        import torch
        from transformers import AutoModelForCausalLM

        model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=getattr(torch, self._dtype), use_safetensors=True, trust_remote_code=False
        )
        return model.to(self._device).eval()

    def release(self) -> None:
        """Take tuned weights off, so that the base is as it was loaded."""
        if self._tuned is not None and hasattr(self._tuned[1], "unload"):
            self._tuned[1].unload()
            vars(self.base).pop("peft_config", None)  # else PEFT takes the next adapter for a second one
            vars(self.base).pop("forward", None)  # TRL wraps forward; left in place, the wrappers would pile up
        self._tuned = None

    def to_tune(self, name: str, lora: Any | None) -> Any:
        """Return a model to train: the base with a fresh LoRA adapter, or a copy with all weights trainable.

        Args:
            name: The tune stage's key; generation finds the result under it while it is warm.
            lora: A `peft.LoraConfig`, or None for full fine-tuning.
        """
        self.release()
        if lora is None:
            model = self._read(self._folder)
        else:
            from peft import get_peft_model

            model = get_peft_model(self.base, lora)
        self._tuned = (name, model)
        return model

    def to_ask(self, weights: LocalWeights) -> Any:
        """Return the model that `weights` names, from memory when it was tuned here last, else from disk."""
        if weights.tuned is None:
            self.release()
            return self.base
        name = Path(weights.tuned).name
        if self._tuned is None or self._tuned[0] != name:
            self.release()
            self._tuned = (name, self._from_disk(weights.tuned))
        return self._tuned[1].eval()

    def _from_disk(self, folder: str) -> Any:
        if not (Path(folder) / ADAPTER_CONFIG).is_file():
            return self._read(folder)
        from peft import PeftModel

        return PeftModel.from_pretrained(self.base, folder).eval()


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the libraries' notices of their own future to themselves: a user can do nothing about them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield


def _settle_garbage() -> None:
    """Set aside what is in memory now, since trainers collect garbage after every run: 0.26 s each, were it all looked at.

    At exit it is given back, because extension modules count their objects then.
    """
    gc.collect()
    gc.freeze()
    atexit.register(gc.unfreeze)


def loaded(weights: LocalWeights, dtype: str, context: Context) -> LoadedModel:
    """Return the base model of `weights`, loading it unless the host holds it already."""
    import torch

    torch.set_num_threads(context.threads)
    torch.set_flush_denormal(True)  # tiny activations would otherwise slow CPUs down a hundredfold
    key = f"{weights.base} {dtype} {context.device}"
    return context.warm.get("base", key, lambda: LoadedModel(weights.base, dtype, context.device))
