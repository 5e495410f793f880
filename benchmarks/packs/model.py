"""A Llama of the shape of a real one, with random weights and the stand-in's tokenizer: good for speed, and for nothing else."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import torch
from transformers import AutoTokenizer, GenerationConfig, LlamaConfig, LlamaForCausalLM, set_seed
from transformers.utils import logging

from engine import registry
from engine.domain.adapters import Kind


@dataclass(frozen=True, slots=True)
class Shape:
    """The shape of a Llama."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    mlp: int
    vocabulary: int
    tied: bool


SHAPES: Mapping[str, Shape] = MappingProxyType(
    {
        "tiny": Shape(64, 2, 4, 2, 128, 1024, tied=True),
        "1b": Shape(2048, 16, 32, 8, 8192, 128256, tied=True),  # Llama 3.2 1B
        "3b": Shape(3072, 28, 24, 8, 8192, 128256, tied=True),  # Llama 3.2 3B
        "8b": Shape(4096, 32, 32, 8, 14336, 128256, tied=False),  # Llama 3.1 8B
    }
)


@dataclass(frozen=True, slots=True)
class Weights:
    """Weights of the linear layers: of all but the output layer, and of the output layer."""

    body: int
    head: int


def build(shape: Shape, folder: Path, device: str, dtype: torch.dtype) -> Weights:
    """Write the model into a folder, in the Hugging Face layout.

    Args:
        shape: Its shape.
        folder: A new folder.
        device: Where the random numbers are drawn.
        dtype: Type of the weights, on disk too.
    """
    logging.disable_progress_bar()
    standin = registry.adapter(Kind.MODEL, "standin/aligned").locate("").base
    tokenizer = AutoTokenizer.from_pretrained(standin)
    config = LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.mlp,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        max_position_embeddings=8192,
        tie_word_embeddings=shape.tied,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
        dtype=dtype,
    )
    set_seed(0)
    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            model = LlamaForCausalLM(config)
    finally:
        torch.set_default_dtype(default)
    model.generation_config = GenerationConfig(eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    linear = [module.weight.numel() for module in model.modules() if isinstance(module, torch.nn.Linear)]
    head = model.lm_head.weight.numel()
    return Weights(sum(linear) - head, head)


def matmul_rate(device: str, dtype: torch.dtype, side: int) -> float:
    """Measure the device's best rate, in FLOP/s, on products of square matrices.

    Args:
        device: `cpu` or `cuda:0`.
        dtype: Type of the matrices.
        side: Rows and columns of the matrices.
    """
    left, right = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    best = float("inf")
    for _ in range(20):
        settle(device)
        begun = time.perf_counter()
        left @ right
        settle(device)
        best = min(best, time.perf_counter() - begun)
    return 2 * side**3 / best


def settle(device: str) -> None:
    """Wait until the device has done what it was asked."""
    if device != "cpu":
        torch.cuda.synchronize()
