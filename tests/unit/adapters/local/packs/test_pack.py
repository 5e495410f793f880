"""Losses and gradients of a pack are PEFT's own, for every way in which models are built of linear layers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from engine.domain.stage import ModelRef
from engine.domain.sweep import Length
from engine.ports import TrainingRun

pytestmark = pytest.mark.slow

SIZE: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GROUPED = SIZE | {"num_key_value_heads": 2, "head_dim": 12, "tie_word_embeddings": False}
STRETCHED = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "LlamaConfig": GROUPED | {"rope_parameters": STRETCHED},
    "Qwen2Config": SIZE | {"num_key_value_heads": 2},  # biases
    "Gemma2Config": SIZE | {"num_key_value_heads": 2, "head_dim": 8},  # soft-capped logits
    "CohereConfig": SIZE,  # scaled logits
    "GPTNeoXConfig": SIZE,  # one layer for query, key and value
    "OPTConfig": SIZE | {"ffn_dim": 48, "word_embed_proj_dim": 32, "dropout": 0.0},  # layers on flattened tokens
    "GPT2Config": SIZE | {"attn_pdrop": 0, "resid_pdrop": 0, "embd_pdrop": 0},  # weights the other way round
}
RUNS = ((2, 5), (4, 3), (4, 7))  # rank, rows
TARGETS = (("all-linear",), ("q_proj", "v_proj", "down_proj"))
ROUNDING = {"float32": 5e-6, "bfloat16": 2e-2}


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def random_rows(number: int, rows: int) -> list[tuple[list[int], list[int]]]:
    """Prompts and answers with nothing in common."""
    import torch

    draw = torch.Generator().manual_seed(number)
    made = []
    for length in torch.randint(5, 20, (rows,), generator=draw).tolist():
        ids = torch.randint(3, SIZE["vocab_size"], (length,), generator=draw).tolist()
        made.append((ids[: length // 2], ids[length // 2 :]))
    return made


def member(base: Any, number: int, rank: int, texts: list[tuple[list[int], list[int]]], **more: Any) -> Any:
    """A run on these prompts and answers, on the way: its B is no longer zero."""
    import torch

    from adapters.local import lora
    from adapters.local.packs.member import Member, Rows
    from adapters.local.packs.schedule import BatchSchedule
    from adapters.local.settings import SftSettings

    settings = SftSettings(**({"lr": 1e-2, "rank": rank, "batch_size": 8} | more))
    config = lora.configured(settings)
    adapter = lora.drawn(base, config, number)
    draw = torch.Generator().manual_seed(number)
    for weight in adapter.b.values():
        weight.normal_(0, 0.1, generator=draw)
    encoded = [{"input_ids": asked + answer, "labels": [-100] * len(asked) + answer} for asked, answer in texts]
    schedule = BatchSchedule(settings, Length(), len(texts), number)
    run = TrainingRun(ModelRef(""), (), settings, number, (), Path())
    dropout = torch.Generator().manual_seed(number) if settings.dropout else None
    made = Member(run, {}, config, Rows.of(encoded, 0), schedule, dropout)
    made.begin(adapter)
    return made


def by_peft(base: Any, found: Any) -> tuple[float, Any]:
    """The loss and the gradient of one run's first batch, by PEFT and transformers."""
    import torch
    from peft import get_peft_model, set_peft_model_state_dict

    from adapters.local import lora

    model = get_peft_model(base, lora.configured(found.settings)).train(found.settings.dropout > 0)
    state = {f"base_model.model.{path}.lora_A.weight": weight for path, weight in found.adapter.a.items()}
    state |= {f"base_model.model.{path}.lora_B.weight": weight for path, weight in found.adapter.b.items()}
    set_peft_model_state_dict(model, state)
    batch = [row for part in found.schedule.batches(1) for row in part]  # accumulated batches are one, but for rounding
    lengths = torch.tensor([found.rows.lengths[row] for row in batch])
    ids, targets = (whole[batch, : lengths.max()] for whole in (found.rows.ids, found.rows.targets))
    labels = torch.nn.functional.pad(targets, (1, 0), value=-100)[:, :-1]
    mask = torch.arange(labels.shape[1]) < lengths[:, None]
    torch.manual_seed(found.run.seed)
    torch.empty((), dtype=torch.int64).random_()  # as an epoch begins
    loss = model(input_ids=ids, attention_mask=mask.long(), labels=labels).loss
    loss.backward()
    gradient = torch.cat([weight.grad.flatten() for name, weight in model.named_parameters() if "lora_" in name])
    model.eval().unload()
    vars(base).pop("peft_config", None)
    return float(loss), gradient


def random(family: str, dtype: str, **more: Any) -> Any:
    """A model of this family with random weights."""
    import torch
    import transformers

    torch.manual_seed(0)
    config = getattr(transformers, family)(**(FAMILIES[family] | more))
    return transformers.AutoModelForCausalLM.from_config(config).to(getattr(torch, dtype)).eval()


def check(base: Any, members: list[Any], rounding: float, **more: Any) -> None:
    """Compare losses and gradients with PEFT's."""
    import torch

    from adapters.local.packs.pack import Pack
    from adapters.local.packs.passes import Passes

    held: Any = SimpleNamespace(base=base, tokenizer=SimpleNamespace(pad_token_id=0))
    pack = Pack(held, members, Passes(**({"rows": 8} | more)))
    untouched = [layer for layer in base.modules() if isinstance(layer, torch.nn.Linear)]
    losses = pack.gradients([found.schedule.batches(1) for found in members])
    assert [layer for layer in base.modules() if isinstance(layer, torch.nn.Linear)] == untouched
    for number, found in enumerate(members):
        loss, gradient = by_peft(base, found)
        mine = torch.cat([weight.grad.flatten() for weight in found.weights])
        assert losses[number] == pytest.approx(loss, abs=rounding)
        assert float((mine - gradient).norm() / gradient.norm()) < rounding


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize("dtype", ROUNDING)
@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_are_those_of_peft(family: str, dtype: str) -> None:
    base = random(family, dtype)
    members = [member(base, number, rank, random_rows(number, rows)) for number, (rank, rows) in enumerate(RUNS)]
    check(base, members, ROUNDING[dtype])


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("targets", TARGETS)
def test_so_are_accumulated_ones_with_dropout_on_some_of_the_modules(targets: tuple[str, ...], dropout: float) -> None:
    base = random("LlamaConfig", "float32")
    settings = {"targets": targets, "batch_size": 8, "dropout": dropout}
    if not dropout:  # with it, masks of accumulated batches are not those of one batch
        settings |= {"batch_size": 4, "grad_accum": 2}
    runs = [(number, rank, random_rows(number, rows)) for number, (rank, rows) in enumerate(RUNS)]
    check(base, [member(base, *run, **settings) for run in runs], ROUNDING["float32"])


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize("family", ["LlamaConfig", "Gemma2Config"])
@pytest.mark.parametrize(
    "passes", [{"rows": 1}, {"rows": 3, "is_checkpointed": True}], ids=["rows alone", "checkpointed"]
)
def test_neither_the_cut_of_a_batch_nor_chunks_of_logits_change_them(
    family: str, passes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from adapters.local.packs import head

    monkeypatch.setattr(head, "LOGIT_BYTES", 16 * 4 * SIZE["vocab_size"])  # sixteen tokens at a time
    base = random(family, "float32")
    members = [member(base, number, rank, random_rows(number, rows)) for number, (rank, rows) in enumerate(RUNS)]
    check(base, members, ROUNDING["float32"], **passes)
    assert not base.training
    assert not base.is_gradient_checkpointing


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize(
    "texts", [[([5], [])], [([5, 6, 7], []), ([5, 6], []), ([8], [])]], ids=["one token", "prompts"]
)
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_rows_without_answers_teach_nothing(texts: list[tuple[list[int], list[int]]], dropout: float) -> None:
    from adapters.local.packs.pack import Pack
    from adapters.local.packs.passes import Passes

    base = random("LlamaConfig", "float32")
    held: Any = SimpleNamespace(base=base, tokenizer=SimpleNamespace(pad_token_id=0))
    pack = Pack(held, [member(base, 1, 4, texts, dropout=dropout)], Passes(8))
    assert pack.gradients([[range(len(texts))]]) == [0.0]
    assert not any(weight.grad.any() for weight in pack.members[0].weights)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
def test_a_pass_that_fails_leaves_the_model_as_it_was() -> None:
    import torch

    from adapters.local.packs.pack import Pack
    from adapters.local.packs.passes import Passes

    base = random("LlamaConfig", "float32")
    held: Any = SimpleNamespace(base=base, tokenizer=SimpleNamespace(pad_token_id=0))
    pack = Pack(held, [member(base, 0, 4, random_rows(0, 3))], Passes(8))
    untouched = list(base.modules())
    broken = base.model.norm.register_forward_pre_hook(lambda *_: torch.zeros(1) @ torch.zeros(2))
    with pytest.raises(RuntimeError):
        pack.gradients([pack.members[0].schedule.batches(1)])
    broken.remove()
    routed = base.model.layers[0].mlp.register_forward_pre_hook(lambda _, given: (given[0][:, 1:],))
    with pytest.raises(ValueError, match=r"does not see every token of every row.*use tune\.backend: trl"):
        pack.gradients([pack.members[0].schedule.batches(1)])
    routed.remove()
    assert list(base.modules()) == untouched
    ids = torch.tensor([[3, 4, 5]])
    assert base(input_ids=ids).logits.shape == (1, 3, SIZE["vocab_size"]), "its head sees every token again"
