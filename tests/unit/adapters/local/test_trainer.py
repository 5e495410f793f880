"""A batch in parts is the batch, whatever the model says of its loss."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from engine import registry
from engine.domain.adapters import Kind
from engine.domain.stage import ModelRef
from engine.domain.sweep import Length
from engine.ports import Checkpoint, Context, NoSettings, TrainingRun, Tuned
from engine.run.executors.workers import WarmSlots

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _denormals() -> Iterator[None]:
    """Workers have torch flush denormals; other tests of this process draw some."""
    import torch

    yield
    torch.set_flush_denormal(False)


def losses(folder: Path, model: ModelRef) -> list[float]:
    """Return the loss of each step of a short run over batches of 4, 4 and 2 rows, two to a step."""
    (folder / "weights").mkdir(parents=True)
    settings = registry.settings_of(Kind.TUNER, "local/sft")
    chosen = settings(method="full", lr=1e-3, batch_size=4, grad_accum=2)
    rows = registry.adapter(Kind.DATA, "standin/explicit").rows(NoSettings())[:10]
    run = TrainingRun(model, rows, chosen, 0, (Checkpoint("k", Length(2), folder / "weights"),), folder / "state")
    ((_, made),) = registry.adapter(Kind.TUNER, "local/sft").fine_tune([run], Context("cpu", 1, 64, WarmSlots()))
    assert isinstance(made, Tuned), made
    return [step.loss for step in made.steps]


def whole_and_parts(folder: Path, model: ModelRef) -> tuple[list[float], list[float]]:
    from adapters.local import memory

    whole = losses(folder / "whole", model)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory, "PASS_FLOP", 0.0)
        return whole, losses(folder / "parts", model)


def standin() -> ModelRef:
    model: ModelRef = registry.adapter(Kind.MODEL, "standin/aligned").locate(NoSettings())
    return model


def test_experts_are_trained_on_the_loss_of_the_tokens_alone(tmp_path: Path) -> None:
    """Their routers' loss is a mean over what goes through at once: parts would add it once each."""
    from torch import manual_seed
    from transformers import AutoTokenizer, MixtralConfig, MixtralForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(standin().base)
    manual_seed(0)
    config = MixtralConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        num_local_experts=4,
        router_aux_loss_coef=10.0,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    MixtralForCausalLM(config).save_pretrained(tmp_path / "experts")
    tokenizer.save_pretrained(tmp_path / "experts")
    whole, parts = whole_and_parts(tmp_path, ModelRef(str(tmp_path / "experts")))
    assert parts == pytest.approx(whole, abs=1e-5)
    assert max(whole) < 10, "nothing but the tokens' loss"


def test_a_model_that_does_not_take_the_number_of_answer_tokens_is_trained_as_one_that_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import LlamaForCausalLM

    wanted = losses(tmp_path / "wanted", standin())
    monkeypatch.setattr(LlamaForCausalLM, "accepts_loss_kwargs", False, raising=False)
    whole, parts = whole_and_parts(tmp_path, standin())
    assert whole == pytest.approx(wanted, abs=1e-6)
    assert parts == pytest.approx(wanted, abs=1e-5)
