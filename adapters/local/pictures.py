"""Images on their way into a vision-language model while it trains. Only workers import this: it starts torch.

Rows are tokenized as they always are (`adapters.chat`), with as many tokens for each image as the model reads. TRL's trainer and its collator make batches of them;
what is added here is the pixels. Pillow alone makes images ready, whether or not torchvision is there: the two differ in bits.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from adapters import images, vision
from engine.domain.conversation import ChatRow, Image

PIXELS, MANY = "pixel_values", "images"
"""In a batch: float[images, channels, height, width], and how many of these each row has, long[rows]."""


def processor(folder: str, tokenizer: Any) -> Any:
    """Return what makes images and texts ready for the model in a folder, with a tokenizer that was read already."""
    from transformers import AutoImageProcessor, AutoProcessor  # they need Pillow, and other runs do without

    found = AutoProcessor.from_pretrained(folder, trust_remote_code=False)
    found.tokenizer = tokenizer
    found.image_processor = AutoImageProcessor.from_pretrained(folder, backend="pil", trust_remote_code=False)
    return found


def with_images(encoded: Sequence[Mapping[str, list[int]]], rows: Sequence[ChatRow]) -> list[dict[str, Any]]:
    """Return encoded rows with the images of each in the column by which TRL knows a data set with images."""
    return [
        {**own, MANY: [asdict(image) for turn in row.turns for image in turn.images]}
        for own, row in zip(encoded, rows, strict=True)
    ]


def freeze(model: Any) -> None:
    """Keep the parts of a model that see as they are."""
    for name, weight in model.named_parameters():
        if vision.sees(name):
            weight.requires_grad_(requires_grad=False)


class Collator:
    """Makes batches of rows, of which any may have images: TRL's batch, and the pixels beside.

    Args:
        processor: What makes images ready.
    """

    def __init__(self, processor: Any) -> None:
        """Begin."""
        self._batch = DataCollatorForLanguageModeling(pad_token_id=processor.tokenizer.pad_token_id)
        self._ready = processor.image_processor

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Return a batch.

        Raises:
            OSError: An image is not there.
            ValueError: It has changed, cannot be decoded, or is made ready in a way that is not known.
        """
        batch: dict[str, Tensor] = self._batch(rows)
        found = [images.read(Image(**image)) for row in rows for image in row[MANY]]
        if not found:
            return batch
        ready = self._ready(images=found, return_tensors="pt")
        if set(ready) != {PIXELS} or len(ready[PIXELS]) != len(found):
            raise ValueError(f"images are made ready as {', '.join(ready)}, and only one {PIXELS} for each is known")
        return {**batch, PIXELS: ready[PIXELS], MANY: torch.tensor([len(row[MANY]) for row in rows])}


def parts(batch: Mapping[str, Tensor], rows: int) -> Iterator[dict[str, Tensor]]:
    """Yield a batch in parts of so many rows, each as wide as its longest row and with the pixels of its own images.

    Args:
        batch: The batch, of which all but the pixels are [rows, length].
        rows: Rows of a part, >= 1.
    """
    texts = {name: values for name, values in batch.items() if name not in {PIXELS, MANY}}
    ends = [0, *batch[MANY].cumsum(0).tolist()] if MANY in batch else []
    for start in range(0, len(texts["input_ids"]), rows):
        part = {name: values[start : start + rows] for name, values in texts.items()}
        read = part["attention_mask"].any(0)  # the columns that are not all padding
        part = {name: values[:, read] for name, values in part.items()}
        stop = start + len(part["input_ids"])
        if ends and ends[stop] > ends[start]:
            part[PIXELS] = batch[PIXELS][ends[start] : ends[stop]]
        yield part
