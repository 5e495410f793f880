"""Models in memory, for the families that train, ask or edit them on this machine. Only workers read them: it starts torch."""

from __future__ import annotations

import gc
import logging
import os
import warnings
from pathlib import Path
from typing import Any

from adapters.model_folder import ADAPTER, adapter_tensors, quantised
from adapters.vision import reads_images
from engine.domain.stage import ModelRef
from engine.ports import Context

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # workers never download: what a stage uses was pinned when planned

logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it tells of faster kernels that may be absent

BASE_WEIGHTS = "base_layer"
"""In the names of the base's own weights, which PEFT writes beside adapters of embeddings."""


REPACKS = "support_avx512bf16_for_cpu"
"""Whether a layer of bitsandbytes changes its weights' layout when it first infers."""


def set_up(context: Context) -> None:
    """Have torch compute as the worker is told to, and its friends keep notices of their own future to themselves.

    An engine of vLLM's that the worker keeps warm makes room: it holds most of a GPU.
    """
    import torch
    from transformers.utils import logging as notices

    context.warm.drop("vllm")
    torch.set_num_threads(context.threads)
    torch.set_flush_denormal(True)  # tiny activations would otherwise slow CPUs down a hundredfold
    notices.set_verbosity_error()
    notices.disable_progress_bar()
    warnings.filterwarnings("ignore", r".* is deprecated and will be removed", FutureWarning)


def release() -> None:
    """Give back what torch keeps of a GPU for itself, so that what is free can be told."""
    import torch

    if torch.cuda.is_available():
        gc.collect()
        torch.cuda.empty_cache()


def read_model(
    folder: str | Path, dtype: str, device: str, quantise: str = "", devices: int = 1, *, stays: bool = True
) -> Any:
    """Return the model in a folder, in evaluation mode.

    With several GPUs its layers are spread over all of them, whether or not it would fit on one.

    Args:
        folder: A folder in the Hugging Face layout.
        dtype: `float32` or `bfloat16`; of a quantised model, what it computes in.
        device: A torch device, the first of several.
        quantise: `nf4` or `int8` to quantise linear layers as they are read (all but the output layer); empty for as they are.
        devices: GPUs, counted from `device` on.
        stays: Whether it stays quantised; where it does not, room is left for it as it will be.

    Raises:
        ValueError: It lacks weights, or does not fit on several GPUs.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    family = AutoModelForImageTextToText if reads_images(Path(folder)) else AutoModelForCausalLM
    kind = getattr(torch, dtype)
    options: dict[str, Any] = {"quantization_config": _quantisation(quantise, kind)} if quantise else {}
    way = quantise or quantised(Path(folder))
    is_split = devices > 1 and device != "cpu"
    if is_split:
        from adapters.split_model import device_map, free_memory

        release()
        first = torch.device(device).index or 0
        places = device_map(Path(folder), dtype, free_memory(first, devices), way if stays else "")
        options["device_map"] = {name: first + place for name, place in places.items()}
    elif way:
        options["device_map"] = {"": device}  # quantised weights cannot all be moved afterwards
    model, told = family.from_pretrained(
        folder, dtype=kind, use_safetensors=True, trust_remote_code=False, output_loading_info=True, **options
    )
    if missing := sorted(told["missing_keys"]):  # transformers would draw them at random
        raise ValueError(f"{folder} lacks {len(missing)} weights of its model, such as {missing[0]}: it is not whole")
    for module in model.modules():
        if hasattr(module, REPACKS):  # or the first answer on some CPUs would round the scales in memory, for good
            setattr(module, REPACKS, False)
    return (model if options.get("device_map") else model.to(device)).eval()


def _quantisation(quantise: str, kind: Any) -> Any:
    from transformers import BitsAndBytesConfig

    if quantise == "nf4":
        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=kind,
        )
    return BitsAndBytesConfig(load_in_8bit=True)


def read_whole(model: ModelRef, dtype: str, device: str, devices: int = 1) -> Any:
    """Return a model with all of its layers: the last weights that are whole, and the adapters after them merged into these.

    A quantised model into which an adapter is merged is made whole first: its weights as they were read back, in `dtype`.

    Args:
        model: The base and its layers.
        dtype: `float32` or `bfloat16`.
        device: A torch device, the first of several.
        devices: GPUs, over all of which it is spread.

    Raises:
        ValueError: When an adapter cannot be merged, or it does not fit.
    """
    folders = [Path(folder) for folder in (model.base, *model.layers)]
    first = max(at for at, folder in enumerate(folders) if at == 0 or not (folder / ADAPTER).is_file())
    on_top = folders[first + 1 :]
    whole = read_model(folders[first], dtype, device, "" if first else model.quantise, devices, stays=not on_top)
    if on_top and is_quantised(whole):
        whole = whole.dequantize(whole.dtype)
    for folder in on_top:
        whole = _merged(whole, folder)
    return whole.eval()


def read_plain(model: ModelRef, dtype: str, device: str) -> Any:
    """Return the same with no weight quantised: those that are as they were read back, in `dtype`."""
    import torch

    whole = read_whole(model, dtype, device)
    return whole.dequantize(getattr(torch, dtype)).eval() if is_quantised(whole) else whole


def is_quantised(model: Any) -> bool:
    """Tell whether a model in memory is quantised."""
    return getattr(model, "hf_quantizer", None) is not None


def _merged(model: Any, folder: Path) -> Any:
    """Put an adapter into a model's weights."""
    from peft import PeftModel

    if model.config.tie_word_embeddings and any(BASE_WEIGHTS in name for name in adapter_tensors(folder)):
        raise ValueError(
            f"{folder.name} adapts embeddings that are the output layer as well: merged, it would be another model"
        )
    return PeftModel.from_pretrained(model, folder).merge_and_unload()
