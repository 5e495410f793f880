"""A base model in memory, and tuned weights on it while they answer. The base never changes; tuned weights are read from disk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from adapters import model_folder, templates
from adapters.local import lora
from adapters.local.decoding import end_tokens
from adapters.whole_model import read_model, read_whole, set_up
from engine.domain.stage import ModelRef
from engine.ports import Context


def read_tokenizer(folder: str, template: Sequence[str] = ()) -> Any:
    """Return the tokenizer in a folder; it pads on the left, and its chat template is told the options in `template`."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left", trust_remote_code=False)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    if not tokenizer.chat_template:
        tokenizer.chat_template = model_folder.chat_template(Path(folder))
    return templates.set_up(tokenizer, template)


class LoadedModel:
    """A model and its tokenizer, kept warm by a worker: what runs begin with, or what the last layer lies on.

    Attributes:
        tokenizer: The tokenizer.
        ends: The tokens at which an answer ends.
        layers: What the model's layers are, by content.

    Args:
        model: The model.
        layers: What its layers are, by content.
        dtype: `float32` or `bfloat16`.
        context: The worker, over all of whose GPUs the weights are spread.
    """

    def __init__(self, model: ModelRef, layers: Sequence[str], dtype: str, context: Context) -> None:
        """Load the tokenizer."""
        self.layers = layers
        self._model, self._where = model, (dtype, context.device)
        self._devices = context.devices
        self.tokenizer = read_tokenizer(model.base, model.template)
        self.ends = end_tokens(Path(model.base), self.tokenizer)
        self._base: Any = None

    @property
    def base(self) -> Any:
        """The weights, in evaluation mode; read when they are first asked for."""
        if self._base is None:
            self._base = read_whole(self._model, *self._where, self._devices)
        return self._base

    @contextmanager
    def tuned(self, weights: ModelRef) -> Iterator[Any]:
        """Yield the model that `weights` names: this one, with a LoRA adapter on it while the block runs, or one of its own.

        Tuned weights are read from disk each time. So what answers is what lies there, whoever wrote it; and reading a file
        takes no longer than finding out whether it is still the one that was read before. Weights that are whole take the
        place of the base in memory: there may be no room for two.
        """
        if weights.tuned is None:
            yield self.base
            return
        folder = Path(weights.tuned)
        if (adapter := lora.read(folder, self._where[1])) is not None:
            from adapters.local.stacked import stacked

            with stacked(self.base, [adapter]) as model:
                yield model
            return
        self._base = None
        if (folder / model_folder.ADAPTER).is_file():  # PEFT knows what it is, and gets a base of its own to put it on
            from peft import PeftModel

            yield PeftModel.from_pretrained(read_whole(weights.below, *self._where, self._devices), folder).eval()
        else:
            yield read_model(weights.tuned, *self._where, devices=self._devices)


def loaded(model: ModelRef, dtype: str, context: Context) -> LoadedModel:
    """Return a model with all of its layers, loading it unless the worker holds it already.

    Layers are known by their content, not by their place: what is in memory serves only while the files are the same bytes.
    """
    set_up(context)
    layers = contents(model)
    key = f"{model.base} {model.quantise} {model.template} {layers} {dtype} {context.device} {context.devices}"
    return context.warm.get("base", key, lambda: LoadedModel(model, layers, dtype, context))


def contents(model: ModelRef) -> list[str]:
    """Return the hash of every layer's files, read now; a base is pinned by the plan. It takes no longer than loading them."""
    return [model_folder.content(Path(layer)) for layer in model.layers]
