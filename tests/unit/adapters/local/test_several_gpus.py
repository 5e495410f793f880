"""Several GPUs for one worker: which layers go where, and which process has which rows. No GPU is needed for either."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from adapters.local import memory
from adapters.local.memory import Shape
from adapters.local.settings import SftSettings
from engine.ports import Machine

GB = 10**9
LAYERS = 16
EIGHT_B = Shape(8_030_261_248, 2_621_440, 32, 4_096, 14_336, 2_048, 128_256, 1_050_673_152)
ONE_B = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 128_256,
    "hidden_size": 2_048,
    "intermediate_size": 8_192,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
}
EXPERTS = {
    "model_type": "qwen2_moe",
    "architectures": ["Qwen2MoeForCausalLM"],
    "vocab_size": 151_936,
    "hidden_size": 1_024,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "moe_intermediate_size": 704,
    "num_experts": 8,
}


def placed(
    config: dict[str, Any], folder: Path, free: list[int], kind: str = ""
) -> tuple[list[int], list[int], list[int]]:
    """Return the device of each layer, of the embedding and the output layer, and the bytes of weights on each device."""
    import torch
    from accelerate import init_empty_weights
    from transformers import AutoConfig, AutoModelForCausalLM

    from adapters.split_model import device_map

    (folder / "config.json").write_text(json.dumps(config))
    found = device_map(folder, "bfloat16", free, kind)
    with init_empty_weights():
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder), dtype=torch.bfloat16)
    model.tie_weights()

    def place(name: str) -> int:
        return next(at for part, at in found.items() if f"{name}.".startswith(f"{part}."))

    held = [0] * len(free)
    for name, weight in model.named_parameters():
        held[place(name)] += weight.numel() * weight.element_size()
    ends = [place("model.embed_tokens"), place("lm_head")]
    return [place(f"model.layers.{layer}") for layer in range(LAYERS)], ends, held


@pytest.mark.parametrize("many", [2, 3, 4])
@pytest.mark.parametrize(
    "config", [ONE_B | {"tie_word_embeddings": True}, ONE_B | {"tie_word_embeddings": False}, EXPERTS]
)
def test_layers_follow_each_other_and_no_gpu_has_more_than_it_has_room_for(
    config: dict[str, Any], many: int, tmp_path: Path
) -> None:
    free = [3 * GB] * many
    layers, ends, held = placed(config, tmp_path, free)
    assert layers == sorted(layers)
    assert set(layers) | set(ends) == set(range(many))
    assert all(taken <= room for taken, room in zip(held, free, strict=True))
    assert max(held) < 1.6 * sum(held) / many
    if config.get("tie_word_embeddings"):
        assert ends == [0, 0]


def test_quantised_layers_take_a_quarter_and_what_does_not_fit_is_said(tmp_path: Path) -> None:
    tight = [1 * GB] * 2
    with pytest.raises(ValueError, match=r"do not fit on 2 GPUs with 2\.0 GB free"):
        placed(ONE_B, tmp_path, tight)
    layers, _, _ = placed(ONE_B, tmp_path, tight, "nf4")
    assert set(layers) <= {0, 1}


def test_an_adapter_goes_to_the_device_of_each_module_that_it_adapts() -> None:
    import torch
    from torch import nn

    from adapters.local.lora import Adapter
    from adapters.local.stacked import stacked

    model = nn.ModuleDict({"near": nn.Linear(4, 4), "far": nn.Linear(4, 4, device="meta")})
    adapter = Adapter(2, 1.0, {name: torch.zeros(2, 4) for name in model}, {name: torch.zeros(4, 2) for name in model})
    with stacked(model, [adapter]):
        found = {name: {tensor.device.type for tensor in module.terms[0][:2]} for name, module in model.items()}
    assert found == {"near": {"cpu"}, "far": {"meta"}}


@pytest.mark.parametrize("rows", [1, 2, 5, 8])
@pytest.mark.parametrize("many", [2, 3])
def test_processes_share_the_rows_of_a_batch_and_each_has_as_many(rows: int, many: int) -> None:
    import torch

    from adapters.chat import IGNORED
    from adapters.local.trainer import share

    batch = {"input_ids": torch.arange(rows)[:, None], "labels": torch.arange(rows)[:, None]}
    shares = [share(batch, place, many) for place in range(many)]
    assert {len(own["input_ids"]) for own in shares} == {-(-rows // many)}
    learnt = [label for own in shares for label in own["labels"].flatten().tolist() if label != IGNORED]
    assert sorted(learnt) == list(range(rows))


def test_what_one_gpu_has_no_room_for_is_sharded_or_split_over_several() -> None:
    full = SftSettings(method="full", lr=1e-5, precision="mixed")
    one = Machine("cuda", devices=1, workers=4, memory=80 * GB)
    alone = memory.tuning_fit(full, EIGHT_B, "", 512, one)
    assert alone.needed > 80 * GB
    assert "`run.resources.gpus_per_host: 2`" in alone.remedies
    four = memory.training(full, EIGHT_B, "", 512, replace(one, devices=4, workers=1, memory=320 * GB))
    assert four.needed <= 320 * GB
    assert (four.devices, four.rows) == (4, 3)  # of ten
    weights, states = (dict(four.parts)[name] / EIGHT_B.weights for name in ("weights", "gradients and optimizer"))
    assert (
        4 + 4 * 2 < weights < 4 + 4 * 3.2
    )  # in float32 once in all, and in bfloat16 in each process, with what it gathers
    assert states == 12
    small = full.model_copy(update={"optimizer": "adamw_8bit"})
    assert full.is_sharded(2)
    assert not small.is_sharded(2)
