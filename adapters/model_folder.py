"""A model folder in the Hugging Face layout, read without loading the model. Shared by the families that have one."""

from __future__ import annotations

import hashlib
import json
import math
from functools import cache
from pathlib import Path
from typing import Any

WEIGHTS = ".safetensors"
INDEX = "model.safetensors.index.json"
ADAPTER = "adapter_config.json"
"""The file by which libraries tell an adapter from a model."""

CONFIG = "config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"

BITSANDBYTES = "bitsandbytes"
BITS = ("nf4", "fp4", "int8")
"""Ways in which bitsandbytes quantises."""

PACKED = "U8"
"""The type under which safetensors has two weights of four bits in a byte."""

PINNED = (".json", ".jinja", ".model", WEIGHTS)
"""Suffixes of the files that decide what a model does; pickles are neither read nor pinned."""


def check(folder: Path) -> None:
    """Refuse a folder that is not one safetensors model.

    Raises:
        FileNotFoundError: Naming what is missing.
        ValueError: It holds an adapter: libraries would put it on the weights wherever they see it.
    """
    if (folder / ADAPTER).is_file():
        if not (folder / CONFIG).is_file():
            raise ValueError(f"{folder} is an adapter, not a whole model: write `adapter:{folder}`")
        raise ValueError(f"{folder} has an {ADAPTER}: name a folder of whole weights, merged and without that file")
    if not (folder / CONFIG).is_file():
        raise FileNotFoundError(f"{folder} has no {CONFIG}: it is not a model folder")
    if not any(folder.glob(f"*{WEIGHTS}")):
        raise FileNotFoundError(
            f"{folder} has no {WEIGHTS} file; pickled weights are not loaded, since pickles can run code"
        )
    missing = [path.name for path in _weights(folder) if not path.is_file()]
    if missing:
        raise FileNotFoundError(f"{folder} lacks {', '.join(missing)}, which its index names: download the model whole")


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file.

    Raises:
        OSError: It cannot be read.
        ValueError: It holds something else.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds no JSON object")  # noqa: TRY004 - the file's fault, not a caller's
    return found


def quantised(folder: Path) -> str:
    """Return how the weights in a folder are quantised; empty when they are not.

    It is `nf4`, `fp4` or `int8` for those of bitsandbytes, and for others the method's name in config.json, such as `gptq`.
    """
    found = read_json(folder / CONFIG).get("quantization_config") if (folder / CONFIG).is_file() else None
    if not isinstance(found, dict):
        return ""
    method = str(found.get("quant_method", BITSANDBYTES))
    if method != BITSANDBYTES:
        return method
    return "int8" if found.get("load_in_8bit") else str(found.get("bnb_4bit_quant_type", "fp4"))


def chat_template(folder: Path) -> object:
    """Return the chat template in a folder, or None: a text, or several by name."""
    if (own := folder / "chat_template.jinja").is_file():
        return own.read_text(encoding="utf-8")
    places = (
        folder / "tokenizer_config.json",
        folder / "chat_template.json",
    )  # the latter of older vision-language models
    found = (read_json(place).get("chat_template") for place in places if place.is_file())
    return next((template for template in found if template), None)


def pin(folder: Path) -> str:
    """Return `sha256:` and hex digits over the names and bytes of the files that decide what the model does."""
    stamp = tuple((path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in _files(folder))
    return _pin(folder.resolve(), stamp)


@cache
def _pin(folder: Path, stamp: tuple[tuple[str, int, int], ...]) -> str:
    del stamp  # only makes a changed folder a new question
    return content(folder)


def content(folder: Path) -> str:
    """Return the same of the files as they are now: every byte is read, whatever their names, sizes and times say."""
    total = hashlib.sha256()
    for path in _files(folder):
        with path.open("rb") as stream:
            total.update(path.name.encode() + b"\0" + hashlib.file_digest(stream, "sha256").digest())
    return f"sha256:{total.hexdigest()}"


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file() and path.suffix in PINNED)


def _weights(folder: Path) -> list[Path]:
    """Return the files that transformers reads the weights from; some repositories have the same in another layout beside."""
    whole, index = folder / f"model{WEIGHTS}", folder / INDEX
    if whole.is_file() or not index.is_file():
        return [whole] if whole.is_file() else sorted(folder.glob(f"*{WEIGHTS}"))
    files = read_json(index).get("weight_map")
    if not isinstance(files, dict) or not all(isinstance(name, str) for name in files.values()):
        raise ValueError(f"{index} is no index of weights: it has no `weight_map` of files")
    return [folder / name for name in sorted(set(files.values()))]


def parameters(folder: Path) -> int | None:
    """Return the number of weights, from the headers of the safetensors files alone.

    None when they are quantised in a way that hides it.
    """
    if quantised(folder) not in ("", *BITS):
        return None
    return sum(map(math.prod, tensors(folder).values()))


def tensors(folder: Path) -> dict[str, list[int]]:
    """Return the shape of every tensor of the model, by name, from the headers of the safetensors files alone."""
    return {name: shape for path in _weights(folder) for name, shape in _shapes_in(path).items()}


def _shapes_in(path: Path) -> dict[str, list[int]]:
    # Layout: https://github.com/huggingface/safetensors#format - 8 bytes of header length, then JSON.
    with path.open("rb") as stream:
        header = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
    return {
        name: [*tensor["shape"], 2] if tensor["dtype"] == PACKED else tensor["shape"]  # two weights in a byte
        for name, tensor in header.items()
        if name != "__metadata__" and not _is_scale(name)
    }


def _is_scale(name: str) -> bool:
    """Tell whether a tensor is what bitsandbytes keeps beside a weight: scales and tables."""
    return ".weight." in name or name.endswith((".SCB", ".weight_format"))


def adapter_tensors(folder: Path) -> list[list[str]]:
    """Return the names of an adapter's tensors, each in its parts; none of what is no adapter."""
    from safetensors import safe_open

    if not (folder / ADAPTER).is_file() or not (folder / ADAPTER_WEIGHTS).is_file():
        return []
    with safe_open(folder / ADAPTER_WEIGHTS, framework="pt") as tensors:
        return [name.split(".") for name in tensors.keys()]  # noqa: SIM118 - it is no mapping


def megabytes(folder: Path) -> float:
    """Return the size of the weights in MB (10^6 bytes)."""
    return sum(path.stat().st_size for path in _weights(folder)) / 1e6
