"""What training and asking a model take of memory, from its config.json and the headers of its weights: before it is taken.

Sizes are those of a decoder with gated MLPs, which chat models have; `tests/unit/adapters/local/test_memory.py` and
`docs/concepts/memory.md` say how far they are from what was measured. All are in bytes. Nothing here starts torch.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from adapters import model_folder, vision
from adapters.local.settings import SftSettings
from engine.ports import Fit, Machine

BYTES: Mapping[str, int] = MappingProxyType({"float32": 4, "bfloat16": 2})

QUANTISED: Mapping[str, float] = MappingProxyType({"nf4": 0.5625, "fp4": 0.5625, "int8": 1.0})
"""Bytes of a weight of a linear layer that bitsandbytes has quantised, with the scale that 64 weights of four bits share."""

LIBRARIES = MappingProxyType({"cpu": 700_000_000, "cuda": 1_000_000_000})
"""What a worker takes with its libraries and no model, by kind of device: of main memory, or of a GPU's for kernels. CPU: measured
2026-12-01 with torch 2.13; GPU: an assumption."""

GAPS = 1.15
"""What an allocator holds, as a multiple of what is asked of it at most."""

KEPT_HIDDEN, KEPT_INNER = 14, 4
"""Numbers that a layer keeps of each token for the backward pass: so many times the model's width, and the MLP's. Measured
2026-12-01 on SmolLM2-135M; TRL's trainer with PEFT keeps `TRL_KEEPS` times as many."""

TRL_KEEPS = 1.3

READ_HIDDEN, READ_INNER = 8, 3
"""Numbers that a layer needs of each token while it only infers, and gives back."""

LOGIT_BYTES = 2**28
"""Logits that there are at a time in training, in float32; the loss needs `LOGIT_COPIES` of them."""

LOGIT_COPIES = 3

GATHERED = 3
"""Layers that a process of a sharded model has whole at a time, beside the model's ends: one at work, one on its way, the gradients
of one. An assumption: no GPU was at hand."""

ALL_LINEAR = ("all-linear",)
"""The targets of an adapter on every linear layer but the output layer."""

PASS_FLOP = 1e10
"""Least work of a forward and a backward pass on a CPU that is worth to go through a batch by: below, several rows go together, because
what a pass costs beside its products would be felt. From about 25 M weights on, rows go one by one, without padding."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What a model's sizes are.

    Attributes:
        weights: Number of weights.
        matrices: Inputs and outputs of every linear layer that is adapted, summed: what a LoRA adapter of rank 1 has.
        layers: Number of layers.
        hidden: Width.
        inner: Width of the MLP: of all experts that see a token, shared ones too.
        keys: Keys and values of one token in one layer, in numbers.
        vocabulary: Tokens that the output layer knows.
        ends: Weights of the embedding and the output layer, counted once where they are one.
        seeing: Weights of the parts that see, which are never trained.
    """

    weights: int
    matrices: int
    layers: int
    hidden: int
    inner: int
    keys: int
    vocabulary: int
    ends: int
    seeing: int = 0


LEFT_OUT: Mapping[str, Mapping[str, int]] = MappingProxyType(
    {
        "llama": {
            "hidden_size": 4096,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "intermediate_size": 11_008,
            "vocab_size": 32_000,
        }
    }
)
"""What transformers takes where the config.json of a vision-language model says nothing of its language model, by that one's type."""


def shape(folder: Path, targets: tuple[str, ...] = ALL_LINEAR) -> Shape:
    """Return the sizes of the model in a folder, with the matrices of the modules that `targets` names.

    Raises:
        OSError: There is none.
        ValueError: Its config.json is not that of a language model that we can size.
    """
    return _shape(folder, targets, (folder / "config.json").stat().st_mtime_ns)


@cache
def _shape(folder: Path, targets: tuple[str, ...], stamp: int) -> Shape:
    del stamp  # only makes a changed file a new question
    whole = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    inner = whole.get("text_config")
    config: Mapping[str, Any] = {**LEFT_OUT.get(inner.get("model_type"), {}), **inner} if inner else whole

    def size(*names: str, default: int | None = None) -> int:
        found = next((config[name] for name in names if config.get(name) is not None), default)
        if isinstance(found, int):
            return found
        # It is not there, or a list with a number for each layer.
        raise ValueError(f"{folder / 'config.json'} has no number as `{names[0]}`: its memory cannot be told")

    hidden, layers = size("hidden_size", "n_embd", "d_model"), size("num_hidden_layers", "n_layer", "num_layers")
    heads = size("num_attention_heads", "n_head")
    inner = size("moe_intermediate_size", "intermediate_size", "n_inner", "ffn_dim", default=4 * hidden)
    shared = size("shared_expert_intermediate_size", default=size("n_shared_experts", default=0) * inner)
    weights = model_folder.parameters(folder)
    if weights is None:
        raise ValueError(f"the weights in {folder} are quantised in a way that hides their number")
    tensors = model_folder.tensors(folder)
    reading = {name: found for name, found in tensors.items() if not vision.sees(name)}
    return Shape(
        weights=weights,
        matrices=sum(
            sum(found)
            for name, found in reading.items()
            if len(found) == len(("out", "in")) and hidden in found and _is_adapted(name, targets)
        ),
        layers=layers,
        hidden=hidden,
        inner=inner * size("num_experts_per_tok", "num_experts_per_token", "experts_per_token", default=1) + shared,
        keys=2 * size("num_key_value_heads", default=heads) * size("head_dim", default=hidden // heads),
        vocabulary=size("vocab_size"),
        ends=sum(math.prod(found) for name, found in reading.items() if _is_vocabulary(name)),
        seeing=sum(math.prod(found) for name, found in tensors.items() if name not in reading),
    )


def _is_adapted(name: str, targets: tuple[str, ...]) -> bool:
    """Tell whether a tensor is that of a module with a LoRA adapter; routed experts, which transformers fuses, have none."""
    if ".experts." in name or _is_vocabulary(name):
        return False
    return targets == ALL_LINEAR or f".{name.removesuffix('.weight')}".endswith(tuple(f".{one}" for one in targets))


def rows_at_once(settings: SftSettings, weights: int, longest: int, device: str) -> int:
    """Return how many rows of a batch go through the model at once, where memory does not say less; >= 1.

    On a CPU it depends on the model and on the rows alone, and so do the bits of what comes out.

    Args:
        settings: How it is tuned.
        weights: Number of weights of the model.
        longest: Tokens of the longest row.
        device: Kind of device.
    """
    if device != "cpu":
        return settings.batch_size
    enough = PASS_FLOP / (4 * max(1, weights) * max(1, longest))
    return max(1, min(settings.batch_size, int(enough)))


def devices(machine: Machine) -> int:
    """Return over how many GPUs a worker spreads a model: all that it has; 1 for a share of one, and without."""
    return max(1, math.ceil(machine.devices))


def training(settings: SftSettings, model: Shape, kind: str, longest: int, machine: Machine) -> Fit:
    """Return what training takes at most, with batches cut so that it fits, if it can.

    Args:
        settings: How it is tuned.
        model: The base model.
        kind: How its weights are quantised; empty for not.
        longest: Tokens of the longest row, cut at `max_length`.
        machine: What the worker has.
    """
    rows = rows_at_once(settings, model.weights, longest, machine.device)
    spread = devices(machine)
    rows = -(-rows // spread) if settings.is_sharded(spread) else rows
    # On a CPU the cut does not depend on what is free, and so the bits of what comes out do not either.
    ways = [
        Fit(rows=rows >> times, devices=spread) for times in range(1 if machine.device == "cpu" else rows.bit_length())
    ]
    if settings.can_checkpoint:
        is_on = settings.gradient_checkpointing == "on"
        again = [replace(way, is_checkpointed=True) for way in (ways if is_on else ways[-1:])]
        ways = again if is_on else [*ways, *again]
    held = _held(model, settings.base_dtype, kind)
    fits = [replace(way, parts=_training_parts(settings, model, held, longest, machine.device, way)) for way in ways]
    found = next((fit for fit in fits if machine.memory is None or fit.needed <= machine.memory), fits[-1])
    # The first halving also gives up the activations, and is all that is left for one row.
    is_kept = settings.can_checkpoint and not found.is_checkpointed
    return replace(found, cuts=max(found.rows.bit_length() - 1, int(is_kept)))


REMEDIES: Mapping[str, Mapping[str, object]] = MappingProxyType(
    {
        "tune.method: lora": {"method": "lora"},
        "tune.precision: mixed": {"precision": "mixed"},
        "tune.optimizer: adamw_8bit": {"optimizer": "adamw_8bit"},
        "tune.max_length: 256": {"max_length": 256},
    }
)
"""What a spec may say instead where training does not fit."""


def tuning_fit(settings: SftSettings, model: Shape, kind: str, longest: int, machine: Machine) -> Fit:
    """Return what training takes, and where it fits not even without other workers, what would. The arguments are those of `training`."""
    found, alone = training(settings, model, kind, min(longest, settings.max_length), machine), machine.alone
    if alone.memory is None or found.needed <= alone.memory:
        return found
    helps = []
    for words, update in REMEDIES.items():
        other = settings.model_copy(update=dict(update))
        tried = training(other, model, kind, min(longest, other.max_length), alone)
        if tried.needed <= alone.memory and other != settings:
            helps.append(f"`{words}`")
    if not kind and settings.method == "lora":
        tried = training(settings, model, "nf4", min(longest, settings.max_length), alone)
        helps += ["`model: {use: dir, path: ..., quantise: nf4}`"] if tried.needed <= alone.memory else []
    helps += _more_gpus(settings, model, kind, min(longest, settings.max_length), machine)
    return replace(found, remedies=tuple(helps))


def _more_gpus(settings: SftSettings, model: Shape, kind: str, longest: int, machine: Machine) -> list[str]:
    """Return with how many GPUs a worker would have room for it, if the machine has so many; the arguments are those of `training`."""
    own = devices(machine)
    for many in (2, 4, 8) if machine.device != "cpu" else ():
        more = replace(machine, devices=many, memory=(machine.memory or 0) * many // own)
        there = own * machine.workers
        if own < many <= there and training(settings, model, kind, longest, more).needed <= (more.memory or 0):
            return [f"`run.resources.gpus_per_host: {many}`"]
    return []


def _held(model: Shape, dtype: str, kind: str) -> int:
    """Return the bytes of a model's weights: quantised ones are those of the linear layers."""
    if not kind:
        return model.weights * BYTES[dtype]
    return round((model.weights - model.ends) * QUANTISED[kind]) + model.ends * BYTES[dtype]


def _training_parts(
    settings: SftSettings, model: Shape, held: int, longest: int, device: str, way: Fit
) -> tuple[tuple[str, int], ...]:
    width = BYTES["bfloat16" if settings.precision != "float32" else "float32"]  # of what is computed
    is_full = settings.method == "full"
    weights = held + (model.weights * width if settings.is_autocast else 0)
    processes = way.devices if settings.is_sharded(way.devices) else 1
    if processes > 1:
        copied = width if settings.is_autocast else 0
        gathered = (model.ends + GATHERED * (model.weights - model.ends) // model.layers) * (
            BYTES[settings.base_dtype] + copied
        )
        copies = 0 if way.is_checkpointed else (model.weights - model.ends) * copied  # kept for the backward pass
        weights = held + processes * (gathered + copies)
    trained = model.weights - model.seeing if is_full else settings.rank * model.matrices
    kept = BYTES["bfloat16" if is_full and settings.precision == "bfloat16" else "float32"]
    moments = 2 if settings.optimizer == "adamw_8bit" else 2 * kept
    tokens = way.rows * longest
    layer = (KEPT_HIDDEN * model.hidden + KEPT_INNER * model.inner) * width
    if not is_full and width < BYTES["float32"]:
        layer += (6 * model.hidden + model.inner) * BYTES["float32"]  # what LoRA's matrices read
    is_trl = settings.pack_blocked or way.devices > 1
    layer = round(layer * (TRL_KEEPS if is_trl and not is_full else 1))
    activations = tokens * (
        layer + model.layers * model.hidden * width if way.is_checkpointed else layer * model.layers
    )
    logits = min(tokens * model.vocabulary * BYTES["float32"], LOGIT_BYTES) * LOGIT_COPIES
    return (
        ("libraries", LIBRARIES[device] * way.devices),
        ("weights", weights),
        ("gradients and optimizer", trained * (kept + moments) + (0 if is_full else trained * kept)),
        ("activations", round(activations * GAPS) * processes),
        ("logits", round(logits * GAPS) * way.devices),  # also of a split model: its fullest GPU decides
    )


def answering(
    dtype: str, model: Shape, kind: str, tokens: int, rows: int, machine: Machine
) -> tuple[tuple[str, int], ...]:
    """Return what answering a batch takes at most.

    Args:
        dtype: Type of the weights.
        model: The base model.
        kind: How its weights are quantised; empty for not.
        tokens: Tokens of the batch, prompts with padding and answers.
        rows: Its prompts.
        machine: What the worker has.
    """
    width = BYTES[dtype]
    passing = tokens * (READ_HIDDEN * model.hidden + READ_INNER * model.inner) * width
    return (
        ("libraries", LIBRARIES[machine.device] * devices(machine)),
        ("weights", _held(model, dtype, kind)),
        ("keys and values", round(tokens * model.layers * model.keys * width * GAPS)),
        ("activations", round((passing + 2 * rows * model.vocabulary * BYTES["float32"]) * GAPS) * devices(machine)),
    )


def _is_vocabulary(name: str) -> bool:
    return any(part in name for part in ("embed", "lm_head", "wte", "wpe", "output.weight"))
