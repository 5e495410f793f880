"""`scale`: a part of what training changed, for LoRA adapters, for whole weights and for several layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from engine import registry
from engine.domain.adapters import Kind, SettingsError, Use
from engine.domain.conversation import Prompt
from engine.domain.stage import ModelRef
from engine.ports import Context, NoSettings, WeightsEdit, WeightsEditor

BASE = Path(registry.adapter(Kind.MODEL, "standin/aligned").locate(NoSettings()).base)
PEFT = pytest.mark.filterwarnings("ignore::UserWarning")  # its advice on rare adapters, which are made here on purpose
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # transformers' own, from its calls to itself

MakeLora: TypeAlias = Callable[..., Path]


def scale(factor: object) -> Use:
    return registry.INSTALLED.use(Kind.MITIGATION, f"scale:{factor}")


@cache
def dense(base: Path, *layers: Path) -> dict[str, Any]:
    """Return the weights of a model, adapters merged, by name."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base)
    for layer in layers:
        model = PeftModel.from_pretrained(model, layer).merge_and_unload()
    return dict(model.named_parameters())


def edited(model: ModelRef, start: ModelRef, folder: Path, context: Context, factor: float = 0.25) -> Path:
    folder.mkdir()
    mitigation = registry.adapter(Kind.MITIGATION, "scale")
    assert isinstance(mitigation, WeightsEditor)
    mitigation.edit_weights(scale(factor).settings, WeightsEdit(model, start, folder), context)
    return folder


def assert_is_a_part(found: Mapping[str, Any], start: Mapping[str, Any], end: Mapping[str, Any], factor: float) -> None:
    """Hold weights to `start + factor * (end - start)`, computed in float64; and see that `end` is another than `start`."""
    import torch

    assert found.keys() == start.keys() == end.keys()
    assert any(not torch.equal(start[name], end[name]) for name in start)
    for name, weight in found.items():
        origin, tuned = start[name].double(), end[name].double()
        torch.testing.assert_close(weight.double(), origin + factor * (tuned - origin), rtol=0, atol=2e-6)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"use_rslora": True, "rank_pattern": {"q_proj": 2}, "alpha_pattern": {"v_proj": 3}},
    ],
    ids=["plain", "patterns"],
)
def test_a_lora_adapter_is_scaled_as_an_adapter(
    more: dict[str, Any], tmp_path: Path, context: Context, make_lora: MakeLora
) -> None:
    layer = make_lora(tmp_path / "tuned", 0, **more)
    base, tuned = ModelRef(str(BASE)), ModelRef(str(BASE), (str(layer),))
    first, second = (edited(tuned, base, tmp_path / f"scaled-{at}", context) for at in range(2))
    assert set(contents(first)) == {"adapter_config.json", "adapter_model.safetensors"}
    assert contents(first) == contents(second)
    assert_is_a_part(dense(BASE, first), dense(BASE), dense(BASE, layer), 0.25)
    beyond = edited(tuned, base, tmp_path / "beyond", context, 2.0)
    assert_is_a_part(dense(BASE, beyond), dense(BASE), dense(BASE, layer), 2.0)


def test_an_adapter_on_a_hardened_base_is_scaled_on_top_of_it(
    tmp_path: Path, context: Context, make_lora: MakeLora
) -> None:
    below, layer = make_lora(tmp_path / "hardened", 0), make_lora(tmp_path / "tuned", 1)
    start = ModelRef(str(BASE), (str(below),))
    scaled = edited(ModelRef(str(BASE), (str(below), str(layer))), start, tmp_path / "scaled", context)
    assert_is_a_part(dense(BASE, below, scaled), dense(BASE, below), dense(BASE, below, layer), 0.25)


def test_two_layers_become_whole_weights_that_load_by_themselves(
    tmp_path: Path, context: Context, make_lora: MakeLora
) -> None:
    layers = [make_lora(tmp_path / f"layer-{at}", at) for at in range(2)]
    base, tuned = ModelRef(str(BASE)), ModelRef(str(BASE), tuple(map(str, layers)))
    first, second = (edited(tuned, base, tmp_path / f"scaled-{at}", context) for at in range(2))
    assert contents(first) == contents(second)
    assert_is_a_part(dense(first), dense(BASE), dense(BASE, *layers), 0.25)
    folder = registry.INSTALLED.use(Kind.MODEL, f"dir:{first}")
    prompts = [Prompt.single("p", "", "Why?")]
    assert registry.adapter(Kind.MODEL, "dir").prompt_lengths(folder.settings, prompts, None)[0] > 0
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json"):
        assert (first / name).read_bytes() == (BASE / name).read_bytes()


def test_whole_weights_are_interpolated_and_the_ends_are_exact(
    tmp_path: Path, context: Context, make_lora: MakeLora
) -> None:
    import torch

    once = edited(
        ModelRef(str(BASE), (str(make_lora(tmp_path / "a", 0)), str(make_lora(tmp_path / "b", 1)))),
        ModelRef(str(BASE)),
        tmp_path / "full",
        context,
    )
    base, tuned = ModelRef(str(BASE)), ModelRef(str(BASE), (str(once),))
    scaled = edited(tuned, base, tmp_path / "scaled", context)
    assert_is_a_part(dense(scaled), dense(BASE), dense(once), 0.25)
    for factor, end in ((0.0, BASE), (1.0, once)):
        found, wanted = dense(edited(tuned, base, tmp_path / f"at-{factor}", context, factor)), dense(end)
        assert all(torch.equal(found[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize(
    "more",
    [
        {"target_modules": ["q_proj"], "use_dora": True},
        {"target_modules": ["q_proj"], "modules_to_save": ["norm"]},
    ],
    ids=["dora", "modules"],
)
def test_an_adapter_that_is_more_than_a_and_b_is_merged(
    more: dict[str, Any], tmp_path: Path, context: Context, make_lora: MakeLora
) -> None:
    layer = make_lora(tmp_path / "tuned", 0, **more)
    scaled = edited(ModelRef(str(BASE), (str(layer),)), ModelRef(str(BASE)), tmp_path / "scaled", context)
    assert (scaled / "model.safetensors").is_file()
    assert_is_a_part(dense(scaled), dense(BASE), dense(BASE, layer), 0.25)


@PEFT
@pytest.mark.parametrize(
    "more", [{"target_modules": ["embed_tokens"]}, {"lora_bias": True}], ids=["embeddings", "bias"]
)
def test_all_of_b_is_scaled_and_nothing_else(
    more: dict[str, Any], tmp_path: Path, context: Context, make_lora: MakeLora
) -> None:
    from safetensors.torch import load_file

    layer = make_lora(tmp_path / "tuned", 0, **more)
    scaled = edited(ModelRef(str(BASE), (str(layer),)), ModelRef(str(BASE)), tmp_path / "scaled", context)
    found, drawn = (load_file(folder / "adapter_model.safetensors") for folder in (scaled, layer))
    changed = {name for name in drawn if found[name].ne(drawn[name]).any()}
    assert changed == {name for name in drawn if "lora_B" in name or "lora_embedding_B" in name}
    assert all(found[name].equal(drawn[name] * 0.25) for name in changed)


@PEFT
def test_adapted_embeddings_that_are_the_output_layer_too_are_never_merged(
    tmp_path: Path, context: Context, make_lora: MakeLora
) -> None:
    layers = [make_lora(tmp_path / "below", 1), make_lora(tmp_path / "tuned", 0, target_modules=["embed_tokens"])]
    with pytest.raises(ValueError, match="tuned adapts embeddings that are the output layer as well"):
        edited(ModelRef(str(BASE), tuple(map(str, layers))), ModelRef(str(BASE)), tmp_path / "merged", context)


@pytest.mark.parametrize(
    ("model", "start", "why"),
    [
        (ModelRef("gpt", ("ft:gpt",)), ModelRef("gpt"), "the weights of `gpt` are not on this machine"),
        (ModelRef(str(BASE)), ModelRef(str(BASE)), "not its starting model with something tuned on top of it"),
        (ModelRef(str(BASE), ("a",)), ModelRef(str(BASE), ("b",)), "not its starting model"),
    ],
)
def test_weights_that_cannot_be_edited_are_refused(
    model: ModelRef, start: ModelRef, why: str, tmp_path: Path, context: Context
) -> None:
    with pytest.raises(ValueError, match=why):
        edited(model, start, tmp_path / "scaled", context)


def test_the_factor_is_read_from_text_and_stays_in_its_range() -> None:
    assert str(scale("0.50")) == "scale:0.5"
    for factor in ("-0.1", "inf", "nan", "half"):
        with pytest.raises(SettingsError, match="factor"):
            scale(factor)
