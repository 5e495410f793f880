"""What training and asking take of memory, by shape; and how batches are cut so that they fit."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import save_file

from adapters.local import memory
from adapters.local.memory import Shape
from adapters.local.packs.passes import Passes
from adapters.local.settings import SftSettings
from adapters.local.tune import LocalFineTuner
from engine.domain.stage import ModelRef
from engine.ports import Fit, Machine, Workload

SMOLLM2 = Shape(134_515_008, 305_280, 30, 576, 1_536, 384, 49_152, 28_311_552)
EIGHT_B = Shape(8_030_261_248, 2_621_440, 32, 4_096, 14_336, 2_048, 128_256, 1_050_673_152)
MEASURED = [
    # tokens of a row, settings, GB resident at most, one row at a time: measured 2026-12-01 by getrusage, torch 2.13
    (128, {}, 1.43),
    (512, {}, 2.31),
    (1024, {}, 3.41),
    (512, {"gradient_checkpointing": "on"}, 1.78),
    (512, {"precision": "mixed"}, 1.85),
    (512, {"backend": "trl"}, 3.00),
    (128, {"method": "full"}, 2.75),
]


def tuned(**settings: Any) -> SftSettings:
    return SftSettings(**({"lr": 1e-4, "max_length": 2048} | settings))


@pytest.mark.parametrize(("tokens", "settings", "gigabytes"), MEASURED)
def test_it_is_near_what_was_measured_on_a_real_model(tokens: int, settings: dict[str, Any], gigabytes: float) -> None:
    fit = memory.training(tuned(**settings), SMOLLM2, "", tokens, Machine())
    assert fit.rows == 1
    assert 0.9 * gigabytes < fit.needed / 1e9 < 1.25 * gigabytes


def test_rows_of_a_small_model_go_together_and_those_of_a_real_one_alone() -> None:
    assert memory.rows_at_once(tuned(batch_size=10), 400_000, 30, "cpu") == 10
    assert memory.rows_at_once(tuned(batch_size=10), SMOLLM2.weights, 30, "cpu") == 1
    assert memory.rows_at_once(tuned(batch_size=10), SMOLLM2.weights, 30, "cuda") == 10


def test_batches_are_cut_and_activations_dropped_only_as_far_as_memory_asks_for_it() -> None:
    settings, whole = tuned(batch_size=16, precision="mixed"), Machine("cuda", memory=80 * 10**9)
    roomy = memory.training(settings, EIGHT_B, "", 512, replace(whole, memory=141 * 10**9))
    assert (roomy.rows, roomy.is_checkpointed) == (16, False)
    cut = memory.training(settings, EIGHT_B, "", 512, replace(whole, memory=40 * 10**9))
    assert 1 <= cut.rows < 16
    assert not cut.is_checkpointed
    assert cut.needed <= 40 * 10**9
    tight = memory.training(settings, EIGHT_B, "", 2048, replace(whole, memory=19 * 10**9))
    assert tight.is_checkpointed
    kept = memory.training(settings.model_copy(update={"gradient_checkpointing": "off"}), EIGHT_B, "", 2048, whole)
    assert not kept.is_checkpointed


def test_what_cannot_fit_says_what_would() -> None:
    full = memory.tuning_fit(tuned(method="full"), EIGHT_B, "", 512, Machine("cuda", memory=80 * 10**9))
    assert full.needed > 80 * 10**9
    assert "`tune.method: lora`" in full.remedies
    small = memory.tuning_fit(tuned(), EIGHT_B, "", 512, Machine(memory=20 * 10**9))
    assert small.remedies == ("`tune.precision: mixed`", "`model: {use: dir, path: ..., quantise: nf4}`")
    shared = memory.tuning_fit(tuned(), EIGHT_B, "", 512, Machine(workers=4, memory=5 * 10**9))
    assert shared.remedies == small.remedies, "one worker would have the memory of four"
    assert not memory.tuning_fit(tuned(), EIGHT_B, "", 512, Machine(workers=4, memory=20 * 10**9)).remedies


def test_a_pack_with_dropout_keeps_its_activations_for_it_would_draw_other_masks() -> None:
    assert not memory.training(tuned(dropout=0.1), EIGHT_B, "", 512, Machine(memory=1)).is_checkpointed
    assert memory.training(tuned(dropout=0.1, backend="trl"), EIGHT_B, "", 512, Machine(memory=1)).is_checkpointed
    with pytest.raises(ValidationError, match="`gradient_checkpointing: on` with `dropout` needs `backend: trl`"):
        tuned(dropout=0.1, gradient_checkpointing="on")


def test_a_stage_that_killed_its_worker_is_cut_smaller_each_time() -> None:
    cuts = [Passes.planned(Fit(rows=8, halvings=times), tuned(), 16) for times in range(3)]
    assert cuts == [Passes(8), Passes(4, is_checkpointed=True), Passes(2, is_checkpointed=True)]
    assert Passes.planned(Fit(halvings=9), tuned(), 16).rows == 1


EXPERTS = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 640,
    "moe_intermediate_size": 24,
    "num_experts_per_tok": 2,
    "vocab_size": 32,
}


def test_of_routed_experts_those_count_that_see_a_token_and_none_is_adapted(tmp_path: Path) -> None:
    wide, narrow = torch.zeros(16, 16), torch.zeros(24, 16)
    tensors = {
        "model.embed_tokens.weight": torch.zeros(32, 16),
        "model.layers.0.self_attn.q_proj.weight": wide,
        "model.layers.0.self_attn.k_proj.weight": wide.clone(),
        "model.layers.0.mlp.shared_expert.up_proj.weight": torch.zeros(40, 16),
        **{f"model.layers.0.mlp.experts.{one}.up_proj.weight": narrow.clone() for one in range(8)},
    }
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(EXPERTS | {"shared_expert_intermediate_size": 40}))
    assert memory.shape(tmp_path).inner == 2 * 24 + 40
    assert memory.shape(tmp_path).matrices == 32 + 32 + 56
    assert memory.shape(tmp_path, ("q_proj", "up_proj")).matrices == 32 + 56
    counted = tmp_path / "counted"
    counted.mkdir()
    save_file(tensors, counted / "model.safetensors")
    (counted / "config.json").write_text(json.dumps(EXPERTS | {"n_shared_experts": 1}))
    assert memory.shape(counted).inner == 3 * 24
    for size in ({"moe_intermediate_size": None, "intermediate_size": [64, 64]}, {"head_dim": "8"}):
        (counted / "config.json").write_text(json.dumps(EXPERTS | size))
        os.utime(counted / "config.json", ns=(0, len(size)))
        with pytest.raises(ValueError, match="its memory cannot be told"):
            memory.shape(counted)
        work = Workload(None, 100, 10, base=ModelRef(str(counted)))
        assert LocalFineTuner().fit(tuned(), work) is None
