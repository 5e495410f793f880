"""What precision does to training: what is trained is float32 under `mixed`, and LoRA matrices are float32 whatever the base is."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from engine import registry
from engine.domain.adapters import Kind
from engine.domain.sweep import Length
from engine.ports import Checkpoint, Context, NoSettings, TrainingRun, Tuned
from engine.run.executors.workers import WarmSlots

pytestmark = pytest.mark.slow
_NUMBERS = count()


@pytest.fixture(autouse=True)
def _denormals() -> Iterator[None]:
    """Workers have torch flush denormals; other tests of this process draw some."""
    import torch

    yield
    torch.set_flush_denormal(False)


def tuned(folder: Path, **settings: Any) -> tuple[dict[str, Any], Tuned]:
    """Return the weights that a short run on the stand-in leaves, and what is said of it."""
    from safetensors.torch import load_file

    place = folder / str(next(_NUMBERS))
    place.mkdir()
    chosen = registry.settings_of(Kind.TUNER, "local/sft")(**({"lr": 2e-3} | settings))
    rows = registry.adapter(Kind.DATA, "standin/explicit").rows(NoSettings())[:10]
    model = registry.adapter(Kind.MODEL, "standin/aligned").locate(NoSettings())
    run = TrainingRun(model, rows, chosen, 0, (Checkpoint("k", Length(3), place),), folder / f"{place.name} state")
    ((_, made),) = registry.adapter(Kind.TUNER, "local/sft").fine_tune([run], Context("cpu", 1, 64, WarmSlots()))
    assert isinstance(made, Tuned), made
    (file,) = place.glob("*.safetensors")
    return load_file(file), made


def test_bfloat16_weights_swallow_small_updates_and_mixed_precision_does_not(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    base = load_file(
        next(Path(registry.adapter(Kind.MODEL, "standin/aligned").locate(NoSettings()).base).glob("*.safetensors"))
    )
    moved = {}
    for precision in ("float32", "mixed", "bfloat16"):
        weights, _ = tuned(tmp_path, method="full", lr=1e-6, precision=precision)
        same = [
            (base[name].to(one.dtype) == one).float().mean().item() for name, one in weights.items() if name in base
        ]
        moved[precision] = 1 - sum(same) / len(same)
    assert moved["float32"] > 0.9
    assert moved["mixed"] > 0.9
    assert moved["bfloat16"] < 0.2


@pytest.mark.parametrize("precision", ["float32", "mixed"])
def test_lora_matrices_are_float32_and_both_backends_agree(tmp_path: Path, precision: str) -> None:
    import torch

    packed, one = tuned(tmp_path, precision=precision)
    alone, other = tuned(tmp_path, precision=precision, backend="trl")
    assert {weight.dtype for weight in [*packed.values(), *alone.values()]} == {torch.float32}
    near = 2e-6 if precision == "float32" else 2e-2  # bfloat16 rounds to 3 digits
    assert [step.loss for step in one.steps] == pytest.approx([step.loss for step in other.steps], abs=near)


def test_for_lora_bfloat16_is_mixed_and_the_warning_is_of_full_tuning_alone() -> None:
    settings, tuner = registry.settings_of(Kind.TUNER, "local/sft"), registry.adapter(Kind.TUNER, "local/sft")
    assert settings(lr=1e-4, precision="bfloat16").effective() == settings(lr=1e-4, precision="mixed")
    assert tuner.notes(settings(lr=1e-4, precision="bfloat16")) == ()
    (note,) = tuner.notes(settings(lr=1e-4, precision="bfloat16", method="full"))
    assert "2.23 after 6 steps, and of 1.12 in float32" in note


def test_an_optimizer_of_eight_bits_trains_all_weights(tmp_path: Path) -> None:
    _, made = tuned(tmp_path, method="full", lr=1e-4, optimizer="adamw_8bit")
    _, whole = tuned(tmp_path, method="full", lr=1e-4)
    assert [step.loss for step in made.steps] == pytest.approx([step.loss for step in whole.steps], rel=0.02)
