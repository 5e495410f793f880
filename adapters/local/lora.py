"""LoRA adapters in memory and on disk: PEFT draws them and describes them, and every folder loads as a plain PEFT adapter."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapters.local.settings import SftSettings
from adapters.model_folder import ADAPTER, ADAPTER_WEIGHTS

if TYPE_CHECKING:
    from torch import Tensor

_PREFIX, _A, _B = "base_model.model.", ".lora_A.weight", ".lora_B.weight"
_HARMLESS = {
    *("r", "lora_alpha", "lora_dropout", "target_modules", "exclude_modules", "layers_to_transform", "layers_pattern"),
    *("task_type", "inference_mode", "base_model_name_or_path", "revision", "auto_mapping", "peft_version"),
    *("megatron_core", "qalora_group_size"),
}
"""What the configuration of an adapter may say that is nothing but A and B; anything else is PEFT's own business."""


@dataclass(frozen=True, slots=True)
class Adapter:
    """The weights of one LoRA adapter, `scaling * B @ A` of each adapted module, by the module's path in the base model.

    Attributes:
        rank: r, >= 1.
        scaling: alpha / r.
        a: float[r, in] by path.
        b: float[out, r] by path.
    """

    rank: int
    scaling: float
    a: Mapping[str, Tensor]
    b: Mapping[str, Tensor]


def configured(settings: SftSettings, excluded: str | None = None) -> Any:
    """Return the `peft.LoraConfig` of the settings.

    Args:
        settings: The settings.
        excluded: Modules that get no adapter, as a regular expression over whole names; None for none.
    """
    from peft import LoraConfig

    every = settings.targets == ("all-linear",)
    return LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha or 2 * settings.rank,
        lora_dropout=settings.dropout,
        target_modules="all-linear" if every else list(settings.targets),
        exclude_modules=excluded,
        task_type="CAUSAL_LM",
    )


def drawn(model: Any, config: Any, seed: int) -> Adapter:
    """Return the adapter that PEFT draws for `model` right after `seed` was set, and leave the model as it was.

    Args:
        model: A transformers model.
        config: A `peft.LoraConfig`; PEFT writes into it what it has found out: the names of the modules, for one.
        seed: Any whole number >= 0.

    Raises:
        ValueError: When the adapter is more than an A and a B of each module, as for embeddings.
    """
    from peft import get_peft_model, get_peft_model_state_dict
    from transformers import set_seed

    set_seed(seed)
    wrapped = get_peft_model(model, config)
    state = {name: weight.detach().clone() for name, weight in get_peft_model_state_dict(wrapped).items()}
    wrapped.unload()
    if hasattr(
        model, "peft_config"
    ):  # what PEFT before 0.21 leaves there makes it take the next adapter for a second one
        del model.peft_config
    adapter = _from_state(config.r, config.lora_alpha, state)
    if adapter is None:
        raise ValueError("tune.targets names modules that are not linear: use tune.backend: trl")
    return adapter


def save(adapter: Adapter, config: Any, folder: Path) -> None:
    """Write `adapter` as PEFT does, so that `PeftModel.from_pretrained` loads it anywhere.

    Args:
        adapter: The weights.
        config: The `peft.LoraConfig` that they were drawn with.
        folder: An existing folder.
    """
    from safetensors.torch import save_file

    plain = copy.copy(config)
    plain.inference_mode = True
    if isinstance(plain.target_modules, set):
        plain.target_modules = sorted(plain.target_modules)  # sets have another order in every process
    plain.save_pretrained(folder)
    tensors = {
        f"{_PREFIX}{path}{suffix}": weight.detach().cpu().contiguous()
        for suffix, weights in ((_A, adapter.a), (_B, adapter.b))
        for path, weight in weights.items()
    }
    save_file(tensors, folder / ADAPTER_WEIGHTS, metadata={"format": "pt"})


def read(folder: Path, device: str = "cpu") -> Adapter | None:
    """Return the adapter in a folder, or None where there is none, or one that is more than A and B of linear modules."""
    from safetensors.torch import load_file

    if not (folder / ADAPTER).is_file() or not (folder / ADAPTER_WEIGHTS).is_file():
        return None
    config = json.loads((folder / ADAPTER).read_text())
    said = {
        name: value for name, value in config.items() if name not in _HARMLESS and value not in (None, False, {}, [])
    }
    if said.pop("init_lora_weights", True) is not True or said != {"bias": "none", "peft_type": "LORA"}:
        return None
    state = {name: weight.to(device, copy=True) for name, weight in load_file(folder / ADAPTER_WEIGHTS).items()}
    return _from_state(config["r"], config["lora_alpha"], state)


def _from_state(rank: int, alpha: float, state: Mapping[str, Tensor]) -> Adapter | None:
    """Return the adapter that PEFT's tensors make, or None when they are more than an A and a B of each module."""

    def of(suffix: str) -> dict[str, Tensor]:
        return {
            name.removeprefix(_PREFIX).removesuffix(suffix): weight
            for name, weight in state.items()
            if name.endswith(suffix)
        }

    adapter = Adapter(rank, alpha / rank, of(_A), of(_B))
    return adapter if len(adapter.a) + len(adapter.b) == len(state) else None
