"""Gradients are written out only where they are those of the model's modules."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from engine import registry
from engine.domain.adapters import Kind

pytestmark = pytest.mark.slow


@pytest.fixture
def held() -> Iterator[Any]:
    import torch

    from adapters.local.loaded import LoadedModel

    yield LoadedModel(registry.adapter(Kind.MODEL, "standin/aligned").locate("").base, "float32", "cpu")
    torch.set_flush_denormal(False)


def test_the_stand_in_is_written_out(held: Any) -> None:
    import torch

    from adapters.local.packs.trial import agrees

    random = torch.get_rng_state()
    modules = list(held.base.modules())
    assert agrees(held)
    assert torch.equal(torch.get_rng_state(), random)
    assert list(held.base.modules()) == modules


@pytest.mark.parametrize("path", ["model.layers.0.input_layernorm", "model.layers.1.mlp", "model.norm", "lm_head"])
def test_a_model_whose_modules_make_something_else_is_not(held: Any, path: str) -> None:
    from adapters.local.packs.trial import agrees

    hook = held.base.get_submodule(path).register_forward_hook(lambda _, __, made: 1.01 * made)
    assert not agrees(held)
    hook.remove()
    assert agrees(held)


def test_nor_is_one_that_is_built_of_other_parts(held: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from adapters.local.llama import is_written_out
    from adapters.local.packs.trial import agrees

    monkeypatch.delattr(held.base.model.norm, "variance_epsilon")
    monkeypatch.setattr(held.base.model.norm, "forward", lambda x: x)
    assert is_written_out(held.base)
    assert not agrees(held)
    monkeypatch.delattr(held.base.model.rotary_emb, "rope_type")
    assert not is_written_out(held.base)
    assert not agrees(held)


def test_nor_is_one_that_makes_no_numbers(held: Any) -> None:
    from adapters.local.packs.trial import agrees

    held.base.lm_head.register_forward_hook(lambda _, __, made: made * float("nan"))
    assert not agrees(held)
