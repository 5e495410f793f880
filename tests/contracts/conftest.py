"""What the contract suites share: a worker's context without a worker, and LoRA adapters of the stand-in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine import registry
from engine.domain.adapters import Kind
from engine.ports import Context, NoSettings


class Slots:
    """Keeps one thing per slot. Implements `engine.ports.Warm`."""

    def __init__(self) -> None:
        self._held: dict[str, tuple[str, Any]] = {}

    def get(self, slot: str, key: str, make: Callable[[], Any]) -> Any:
        if self._held.get(slot, ("", None))[0] != key:
            self._held[slot] = (key, make())
        return self._held[slot][1]

    def drop(self, slot: str) -> None:
        self._held.pop(slot, None)


@pytest.fixture
def context() -> Context:
    return Context("cpu", 1, 8, Slots())


@pytest.fixture
def make_lora() -> Callable[..., Path]:
    """Write a LoRA adapter of the stand-in whose weights PEFT drew, B too: (folder, seed, settings of `LoraConfig`)."""

    def make(folder: Path, seed: int, **more: Any) -> Path:
        import torch
        from peft import LoraConfig, get_peft_model
        from transformers import AutoModelForCausalLM

        torch.manual_seed(seed)
        base = registry.adapter(Kind.MODEL, "standin/aligned").locate(NoSettings()).base
        fields = {"r": 4, "lora_alpha": 6, "target_modules": "all-linear", "init_lora_weights": False} | more
        get_peft_model(AutoModelForCausalLM.from_pretrained(base), LoraConfig(**fields)).save_pretrained(folder)
        return folder

    return make
