"""A base model in memory, tuned adapters beside it, and at most one set of tuned weights on it; the base never changes."""

from __future__ import annotations

import atexit
import gc
import os
import warnings
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from adapters.local import lora
from adapters.local.lora import Adapter
from engine.domain.stage import ModelRef
from engine.ports import Context

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # hosts never download: what a stage uses was pinned when planned

REMEMBERED = 512 * 2**20
"""Bytes of tuned adapters that a host keeps; the rest it reads from disk when asked for."""


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the libraries' notices of their own future to themselves: a user can do nothing about them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield


class Remembered:
    """Adapters by the key of their tune stage: those used last, as many as `limit` bytes hold.

    Args:
        limit: Bytes, >= 0.
    """

    def __init__(self, limit: int = REMEMBERED) -> None:
        """Remember nothing yet."""
        self._limit = limit
        self._adapters: OrderedDict[str, Adapter] = OrderedDict()
        self._bytes = 0

    def put(self, key: str, adapter: Adapter) -> None:
        """Keep an adapter, and let those go that were not used for longest."""
        if key in self._adapters:
            self._bytes -= _size(self._adapters.pop(key))
        self._adapters[key] = adapter
        self._bytes += _size(adapter)
        while self._bytes > self._limit:
            _, gone = self._adapters.popitem(last=False)
            self._bytes -= _size(gone)

    def get(self, key: str) -> Adapter | None:
        """Return an adapter that is still here."""
        if key in self._adapters:
            self._adapters.move_to_end(key)
        return self._adapters.get(key)


class LoadedModel:
    """A base model and its tokenizer, kept warm by a host.

    LoRA adapters are attached to the base and taken off again (its own weights never change); fully tuned weights
    live in a model of their own.

    Attributes:
        folder: Folder of the base model.
        tokenizer: Its tokenizer.
        base: The model, in evaluation mode.

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
        self.folder, self._dtype, self._device = folder, dtype, device
        self.tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left", trust_remote_code=False)
        if self.tokenizer.pad_token_id is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        self.base = self._read(folder)
        self._tuned: tuple[str, Any] | None = None
        self._remembered = Remembered()
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
            model = self._read(self.folder)
        else:
            from peft import get_peft_model

            model = get_peft_model(self.base, lora)
        self._tuned = (name, model)
        return model

    def remember(self, key: str, adapter: Adapter) -> None:
        """Keep a tuned adapter in memory, under its tune stage's key: it is asked soon after it was made."""
        self._remembered.put(key, adapter)

    def adapter(self, weights: ModelRef) -> Adapter | None:
        """Return the adapter that `weights` names, or None when it names the base, or more than A and B."""
        if weights.tuned is None:
            return None
        folder = Path(weights.tuned)
        found = self._remembered.get(folder.name)
        if found is None and lora.is_plain(folder):
            found = lora.read(folder)
            self.remember(folder.name, found)
        return found

    @quiet()
    def to_ask(self, weights: ModelRef) -> Any:
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
        if not (Path(folder) / lora.CONFIG).is_file():
            return self._read(folder)
        from peft import PeftModel

        return PeftModel.from_pretrained(self.base, folder).eval()


def _size(adapter: Adapter) -> int:
    """Bytes of an adapter's weights."""
    return sum(weight.nbytes for weights in (adapter.a, adapter.b) for weight in weights.values())


def _settle_garbage() -> None:
    """Set aside what is in memory now, since trainers collect garbage after every run: 0.26 s each, were it all looked at.

    Nothing is collected before: imports leave next to none. At exit it is given back, because extension modules count
    their objects then.
    """
    gc.freeze()
    atexit.register(gc.unfreeze)


def loaded(weights: ModelRef, dtype: str, context: Context) -> LoadedModel:
    """Return the base model of `weights`, loading it unless the host holds it already."""
    import torch

    torch.set_num_threads(context.threads)
    torch.set_flush_denormal(True)  # tiny activations would otherwise slow CPUs down a hundredfold
    key = f"{weights.base} {dtype} {context.device}"
    return context.warm.get("base", key, lambda: LoadedModel(weights.base, dtype, context.device))
