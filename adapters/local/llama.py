"""Models of Llama's form: which ones are computed by code of our own, and what its two halves share. Only hosts import this.

For a small model on a CPU, transformers' general code spends more time on padding, temporaries and calls than on products.
`packs/llama.py` (training) and `decoding/llama.py` (answers) therefore write the same sums out for this one form. Every
other model, type and device is computed by transformers' own code.

Queries and keys are turned by their positions as complex numbers. transformers pairs number i of a head with number
i + dim / 2; here pairs lie side by side: the rows of the projections' weights are put in that order once, in queries and
keys alike, so that their products stay what they are.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import LlamaForCausalLM

LINEARS = (
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
)
"""The linear modules of one layer, by their path in it."""

SMALL = 8 * 2**20
"""Bytes of the layers' and the head's weights up to which they are computed here: copies are made of them. A model of 61 MiB
was asked at 0.7 to 0.9 times the speed of transformers' modules, one of 15 MiB at 0.9 to 1 times (eight and 32 prompts a
model, 12 models)."""


def layer_prefix(index: int) -> str:
    """Return what the paths of a layer's modules begin with."""
    return f"model.layers.{index}."


def linear_paths(model: Any) -> set[str]:
    """Return the paths of the linear modules of all layers."""
    return {f"{layer_prefix(index)}{path}" for index in range(len(model.model.layers)) for path in LINEARS}


def is_written_out(model: Any) -> bool:
    """Tell whether a model has the form that is written out here: Llama itself, small, in float32, on a CPU.

    Whether its sums are those written out is for trials to tell: another version of transformers may compute otherwise.
    """
    if type(model) is not LlamaForCausalLM or model.device.type != "cpu":
        return False
    try:
        return _has_form(model)
    except AttributeError:  # another version of transformers builds its Llamas of other parts
        return False


def _has_form(model: Any) -> bool:
    config, rotary = model.config, model.model.rotary_emb
    linears = [model.get_submodule(path) for path in linear_paths(model)]
    return (
        config.hidden_act == "silu"
        and rotary.rope_type in {"default", "linear", "llama3"}  # the angles are those of the positions alone
        and rotary.attention_scaling == 1.0
        and not config.attention_dropout
        and all(type(linear) is nn.Linear and linear.bias is None for linear in linears)
        and all(weight.dtype == torch.float32 for weight in model.parameters())
        and sum(linear.weight.nbytes for linear in [*linears, model.lm_head]) <= SMALL
    )


class Turning:
    """How queries and keys are turned by their positions.

    Attributes:
        heads: Heads of queries.
        groups: Heads of keys and of values.
        dim: Numbers of a head, even.
        sizes: Numbers of all queries, keys and values of a token.
        order: long[(heads + groups) * dim]: the order of the rows of the query and key projections that lays pairs side by
            side: row `order[i]` of theirs is row i here.

    Args:
        model: A model for which `is_written_out` holds.
    """

    def __init__(self, model: Any) -> None:
        """Look at the first layer: all are alike."""
        attention = model.model.layers[0].self_attn
        self.dim: int = attention.head_dim
        self.heads = attention.q_proj.out_features // self.dim
        self.groups = attention.k_proj.out_features // self.dim
        self.sizes = [self.heads * self.dim, self.groups * self.dim, self.groups * self.dim]
        turned = sum(self.sizes[:2])
        self.order = torch.arange(turned).view(-1, 2, self.dim // 2).transpose(1, 2).flatten()
        self._speeds = model.model.rotary_emb.inv_freq.float()

    def at(self, positions: Tensor) -> Tensor:
        """Return complex[tokens, (heads + groups) * dim / 2], what tokens at these positions are turned by.

        Args:
            positions: long[tokens].
        """
        angles = torch.outer(positions.float(), self._speeds)
        return torch.polar(torch.ones_like(angles), angles).repeat(1, self.heads + self.groups)


def turn(numbers: Tensor, by: Tensor) -> None:
    """Turn queries and keys in place.

    Args:
        numbers: float[tokens, numbers]: each token's, those that are turned first, with pairs side by side.
        by: complex[tokens, pairs]: as `Turning.at` returns it, or its columns of the keys alone; its conjugate turns back.
    """
    turned = numbers[:, : 2 * by.shape[1]]
    torch.view_as_complex(turned.view(len(turned), -1, 2)).mul_(by)


def scales(x: Tensor, epsilon: float) -> Tensor:
    """Return float[tokens, 1], what root mean square normalisation multiplies x: float[tokens, width] with."""
    length: Tensor = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    return length.square_().div_(x.shape[1]).add_(epsilon).rsqrt_()
