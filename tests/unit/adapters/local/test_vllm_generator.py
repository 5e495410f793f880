"""`local/vllm` against a stand-in for vLLM's documented API: what is asked of it, and what becomes of its answers."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from adapters.local.settings import DecodeSettings
from adapters.local.vllm_generator import VllmGenerator
from engine.domain.conversation import Prompt
from engine.domain.stage import ModelRef
from engine.domain.sweep import Decoding
from engine.ports import Context, GenerateTask, StoppedError
from engine.run.executors.workers import WarmSlots

PROMPTS = [Prompt.single("p1", "c", "one two"), Prompt.single("p2", "c", "three")]


class Tokenizer:
    eos_token_id = 8
    chat_template = None

    def apply_chat_template(self, turns: list[dict[str, str]], **_: Any) -> str:
        return " ".join(turn["content"] for turn in turns)

    def decode(self, tokens: list[int], **_: Any) -> str:
        return f" by {tokens[0]} "

    def __call__(self, texts: list[str], **_: Any) -> dict[str, list[list[int]]]:
        return {"input_ids": [[len(word) for word in text.split()] for text in texts]}


class LLM:
    started: list[dict[str, Any]] = []  # noqa: RUF012 - the test looks at it
    calls: list[tuple[Any, ...]] = []  # noqa: RUF012

    def __init__(self, **settings: Any) -> None:
        self.started.append(settings)

    def generate(self, prompts: Any, sampling: Any, *, lora_request: Any, use_tqdm: bool) -> list[Any]:
        assert not use_tqdm
        self.calls.append((prompts, sampling, lora_request))
        return [
            SimpleNamespace(
                outputs=[
                    SimpleNamespace(token_ids=(request[1] if request else 0, 8), finish_reason="stop")
                    for _ in range(one["n"])
                ],
            )
            for _, one, request in zip(prompts, sampling, lora_request, strict=True)
        ]


@pytest.fixture
def vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    modules = {
        "vllm": {"LLM": LLM, "SamplingParams": dict},
        "vllm.lora": {},
        "vllm.lora.request": {"LoRARequest": lambda *request: request},
        "torch": {"cuda": SimpleNamespace(mem_get_info=lambda: (40, 80), is_available=lambda: False)},
    }
    for name, names in modules.items():
        module = ModuleType(name)
        vars(module).update(names)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr("adapters.local.vllm_generator.read_tokenizer", lambda *_: Tokenizer())
    monkeypatch.setattr(LLM, "started", [])
    monkeypatch.setattr(LLM, "calls", [])


def adapter(folder: Path, rank: int) -> ModelRef:
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"r": rank}))
    return ModelRef("base", (str(folder),))


@pytest.mark.usefixtures("vllm")
def test_an_adapter_whose_file_was_edited_is_another_one(tmp_path: Path) -> None:
    model, context = adapter(tmp_path / "tune-a", 8), Context("cuda:0", 1, 64, WarmSlots())
    task = GenerateTask("a", model, PROMPTS[:1], None, Decoding(9), DecodeSettings(), 5)
    for rank in (8, 8, 4):
        (tmp_path / "tune-a" / "adapter_config.json").write_text(json.dumps({"r": rank}))
        dict(VllmGenerator().generate([task], context))
    assert [requests[0][1] for _, _, requests in LLM.calls] == [1, 1, 2]


@pytest.mark.usefixtures("vllm")
@pytest.mark.parametrize(("devices", "split"), [(0, None), (1, None), (2, 2)])
def test_a_model_is_split_over_all_gpus_of_its_worker(
    devices: int, split: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adapters.local.vllm_generator.read_tokenizer", lambda *_: Tokenizer())
    monkeypatch.setattr(LLM, "started", [])
    task = GenerateTask("a", ModelRef("base"), PROMPTS[:1], None, Decoding(9), DecodeSettings(), 5)
    dict(VllmGenerator().generate([task], Context("cuda:0", 1, 64, WarmSlots(), devices=devices)))
    assert [settings.get("tensor_parallel_size") for settings in LLM.started] == [split]


@pytest.mark.usefixtures("vllm")
def test_all_adapters_are_asked_in_one_call_and_answers_find_their_tasks(tmp_path: Path) -> None:
    (tmp_path / "tune-full").mkdir()
    weights = {
        "base": ModelRef("base"),
        "a": adapter(tmp_path / "tune-a", 8),
        "b": adapter(tmp_path / "tune-b", 24),
        "full": ModelRef("base", (str(tmp_path / "tune-full"),)),
    }
    decoding = Decoding(9, temperature=1.0, samples=2)
    tasks = [GenerateTask(key, model, PROMPTS, None, decoding, DecodeSettings(), 5) for key, model in weights.items()]
    made = dict(VllmGenerator().generate(tasks, Context("cuda:0", 1, 64, WarmSlots())))
    assert isinstance(made.pop("full"), ValueError)
    assert [(r.prompt_id, r.sample, r.text) for r in made["b"].responses] == [  # type: ignore[union-attr]
        (prompt, sample, "by 2") for prompt in ("p1", "p2") for sample in (0, 1)
    ]
    assert {key: one.usage.generated_tokens for key, one in made.items()} == {"base": 8, "a": 8, "b": 8}  # type: ignore[union-attr]
    (settings,), ((prompts, sampling, requests),) = LLM.started, LLM.calls
    assert settings["max_lora_rank"] == 32 and settings["gpu_memory_utilization"] == pytest.approx(0.45)  # noqa: PT018
    assert prompts[:2] == [{"prompt_token_ids": [3, 3]}, {"prompt_token_ids": [5]}]
    assert [request and request[1] for request in requests] == [None, None, 1, 1, 2, 2]
    assert sampling[0]["seed"] == sampling[2]["seed"] != sampling[1]["seed"]


class Stops:
    """A pulse that stops at the end of a chunk."""

    def __init__(self) -> None:
        self.beats: list[tuple[str, float, float]] = []

    def beat(self, key: str, done: float, of: float) -> None:
        self.beats.append((key, done, of))
        if len(self.beats) == 4:
            raise StoppedError


@pytest.mark.usefixtures("vllm")
def test_it_is_asked_in_parts_and_hears_between_them_that_it_is_to_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    from adapters.local import vllm_generator

    monkeypatch.setattr(vllm_generator, "AT_ONCE", 3)
    tasks = [
        GenerateTask(key, ModelRef("base"), PROMPTS * 2, None, Decoding(9), DecodeSettings(), 5) for key in ("a", "b")
    ]
    pulse = Stops()
    with pytest.raises(StoppedError):
        dict(VllmGenerator().generate(tasks, Context("cuda:0", 1, 64, WarmSlots(), pulse=pulse)))
    assert pulse.beats == [("a", 0, 4), ("a", 3, 4), ("b", 0, 4), ("b", 2, 4)]
    assert [len(prompts) for prompts, _, _ in LLM.calls] == [3, 3]


@pytest.mark.usefixtures("vllm")
def test_fields_of_the_model_itself_are_asked_for_under_vllm_s_names(tmp_path: Path) -> None:
    own = {"repetition_penalty": 1.2, "min_new_tokens": 4, "top_k": 5, "eos_token_id": [2, 9]}
    (tmp_path / "generation_config.json").write_text(json.dumps(own))
    settings, model = DecodeSettings(model_defaults=True), ModelRef(str(tmp_path))
    task = GenerateTask("a", model, PROMPTS[:1], None, Decoding(9), settings, 5)
    dict(VllmGenerator().generate([task], Context("cuda:0", 1, 64, WarmSlots())))
    ((_, (sampling,), _),) = LLM.calls
    assert {name: sampling[name] for name in ("repetition_penalty", "min_tokens", "stop_token_ids")} == {
        "repetition_penalty": 1.2,
        "min_tokens": 4,
        "stop_token_ids": [2, 8, 9],
    }
    assert "top_k" not in sampling
    for other, words in (
        (replace(model, quantise="nf4"), "leave `quantise` out"),
        (replace(model, layers=("x",)), "one adapter"),
    ):
        with pytest.raises(ValueError, match=words):
            VllmGenerator().notes(settings, Decoding(), other)


def test_without_vllm_it_says_what_to_install() -> None:
    with pytest.raises(ImportError, match=r"dosimeter\[vllm\]"):
        VllmGenerator().warm_up()
