"""`local/vllm` by vLLM itself, beside `local/transformers`: `make vllm-check`. No part of `make test`: vLLM is a package of gigabytes.

The model is a random Llama with the stand-in's tokenizer, whose own heads are too small for vLLM; `DOSIMETER_MODEL` names the folder of
another one.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("vllm")

from engine import registry
from engine.domain.adapters import Kind
from engine.domain.conversation import Prompt
from engine.domain.stage import ModelRef
from engine.domain.sweep import Decoding, Length
from engine.ports import Checkpoint, Context, Generated, GenerateTask, NoSettings, TrainingRun
from engine.run.executors.workers import WarmSlots

POLICY = registry.settings_of(Kind.BENCHMARK, "standin/policy")
PROMPTS: Sequence[Prompt] = registry.adapter(Kind.BENCHMARK, "standin/policy").prompts(POLICY(each=2))
ROWS = registry.adapter(Kind.DATA, "standin/explicit").rows(NoSettings())[:10]
STANDIN = registry.adapter(Kind.MODEL, "standin/aligned").locate(NoSettings()).base


@pytest.fixture(scope="module")
def context() -> Context:
    return Context("cpu", os.cpu_count() or 1, 8, WarmSlots())


def write_random(folder: Path) -> None:
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(STANDIN)
    sizes = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4}
    ends = {"eos_token_id": tokenizer.eos_token_id, "bos_token_id": None, "pad_token_id": tokenizer.pad_token_id}
    config = LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=256, initializer_range=0.2, **sizes, **ends)
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, context: Context) -> dict[str, ModelRef]:
    """A base whose generation_config has a will of its own, and two adapters on it."""
    root = tmp_path_factory.mktemp("models")
    if "DOSIMETER_MODEL" in os.environ:
        shutil.copytree(os.environ["DOSIMETER_MODEL"], root / "base")
    else:
        write_random(root / "base")
    path = root / "base" / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"repetition_penalty": 1.3, "min_new_tokens": 4}))
    base = ModelRef(str(root / "base"))
    tuner, settings = registry.adapter(Kind.TUNER, "local/sft"), registry.settings_of(Kind.TUNER, "local/sft")
    runs = []
    for name, fields in {"one": {"rank": 4}, "two": {"rank": 24}}.items():
        (root / name).mkdir()
        checkpoint = Checkpoint(name, Length(3), root / name)
        runs.append(TrainingRun(base, ROWS, settings(lr=2e-3, **fields), 0, (checkpoint,), root / f"state-{name}"))
    made = dict(tuner.fine_tune(runs, context))
    assert not [one for one in made.values() if isinstance(one, Exception)], made
    return {"base": base} | {name: replace(base, layers=(str(root / name),)) for name in made}


def asked(name: str, models: dict[str, ModelRef], context: Context, **settings: Any) -> dict[str, Generated]:
    own = registry.settings_of(Kind.GENERATOR, name)(**settings)
    tasks = [GenerateTask(key, model, PROMPTS, None, Decoding(32), own, 0) for key, model in models.items()]
    made = dict(registry.adapter(Kind.GENERATOR, name).generate(tasks, context))
    assert not [one for one in made.values() if isinstance(one, Exception)], made
    return made  # type: ignore[return-value] # no exception is among them


@pytest.mark.parametrize("model_defaults", [False, True])
def test_greedy_answers_are_those_of_transformers(
    models: dict[str, ModelRef], context: Context, *, model_defaults: bool
) -> None:
    ours = asked("local/transformers", models, context, model_defaults=model_defaults)
    theirs = asked("local/vllm", models, context, model_defaults=model_defaults)
    pairs = [
        (mine, other) for key in models for mine, other in zip(ours[key].responses, theirs[key].responses, strict=True)
    ]
    equal = sum(mine == other for mine, other in pairs)
    assert equal >= 0.95 * len(pairs), [(a.text, b.text) for a, b in pairs if a != b]
    assert len({mine.text for mine, _ in pairs}) > len(PROMPTS), "the models answer differently"
