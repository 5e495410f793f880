"""`local/vllm`: answers from vLLM's offline engine, all adapters together.

Written to the documented API of vLLM from 0.22 on (docs.vllm.ai: `LLM.generate`, `LoRARequest`, `LoRAConfig`, `SamplingParams`); its
CPU build, 0.32, is run by `make vllm-check`. Its scheduler decides who is computed together, so that near ties may fall either way from one run to the next.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil

from adapters import model_folder
from adapters.chat import prompt_tokens
from adapters.local.decoding import end_tokens, taken
from adapters.local.generate import TransformersGenerator
from adapters.local.loaded import read_tokenizer
from adapters.local.responses import generated
from adapters.local.settings import DecodeSettings
from adapters.whole_model import release
from engine.domain.results import Finish
from engine.domain.stage import ModelRef
from engine.domain.sweep import Decoding
from engine.ports import Context, Generated, GenerateTask, Pulse

RANKS = (16, 32, 64, 128, 256, 320, 512)
"""Values of `max_lora_rank` from vLLM's default on."""

SHARE = 0.9
"""The part of what is free on a GPU that vLLM takes; its own default."""

CACHE = 4 * 1024**3
"""Bytes of keys and values that it may keep on a CPU, half of what is free at most."""

AT_ONCE = 256
"""Prompts that vLLM is given in one call: after each it is said how far the tasks are, and heard whether to stop."""

QUIET = {"VLLM_LOGGING_LEVEL": "ERROR", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
"""What vLLM is told by its environment, unless the user does: a worker shares its cores with others."""

NAMES = {"min_new_tokens": "min_tokens"}
"""Decoding fields that vLLM has under another name than transformers."""


@dataclass(frozen=True, slots=True)
class Engine:
    """vLLM's engine, and the numbers by which it knows the adapters that it has seen: each by its folder and content."""

    llm: Any
    numbers: dict[str, int] = field(default_factory=dict)

    def adapter(self, folder: str | None) -> Any:
        """Return the request for an adapter, or None for the base model."""
        if folder is None:
            return None
        seen = f"{folder} {model_folder.content(Path(folder))}"
        number = self.numbers.setdefault(seen, len(self.numbers) + 1)
        return _vllm("vllm.lora.request").LoRARequest(Path(folder).name, number, folder)


class VllmGenerator(TransformersGenerator):
    """Decoding by vLLM, of a base model and of LoRA adapters on it; the forecast is that of transformers, to be safe."""

    revision = 2

    def __init__(self) -> None:
        """Look whether vLLM is there: planning is the time to say that it is not."""
        if "vllm" not in sys.modules and find_spec("vllm") is None:
            raise ImportError("vLLM is not installed: `pip install 'dosimeter[vllm]'`, on a machine with a GPU")

    def notes(self, settings: DecodeSettings, decoding: Decoding, model: ModelRef) -> Sequence[str]:
        """Say which decoding fields the model sets of its own, and whether they are applied.

        Raises:
            ValueError: The model is not one that vLLM reads as transformers does, or a field is wanted that is not in both.
        """
        if model.quantise:
            raise ValueError("vLLM reads weights as they are on disk: leave `quantise` out, or use local/transformers")
        if model.layers:
            raise ValueError(
                "vLLM puts one adapter on a base, and this one has its own already: use local/transformers"
            )
        return super().notes(settings, decoding, model)

    def warm_up(self) -> None:
        """Import what every task needs."""
        _vllm()

    def generate(self, tasks: Sequence[GenerateTask], context: Context) -> Iterator[tuple[str, Generated | Exception]]:
        """Answer the prompts of all tasks together; fully tuned weights are an error here."""
        since = time.perf_counter()
        asked = []
        for task in tasks:
            layers = task.model.layers
            if not layers or (len(layers) == 1 and (Path(layers[0]) / model_folder.ADAPTER).is_file()):
                asked.append(task)
            else:
                message = (
                    "local/vllm answers base models and one LoRA adapter on them; ask others with local/transformers"
                )
                yield task.key, ValueError(message)
        if asked:
            yield from _answered(asked, _engine(asked, context), since, context.pulse)


def _vllm(module: str = "vllm") -> Any:
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    return import_module(module)


def _engine(tasks: Sequence[GenerateTask], context: Context) -> Engine:
    """Return the warm engine, or start one; the model that training holds makes room for it."""
    folders = {task.model.tuned for task in tasks if task.model.tuned is not None}
    needed = max((json.loads((Path(folder) / model_folder.ADAPTER).read_text())["r"] for folder in folders), default=0)
    settings: dict[str, Any] = {
        "model": tasks[0].model.base,
        "dtype": tasks[0].settings.dtype,
        "max_model_len": -1,  # as long as memory allows, up to the model's own
        "enable_lora": True,
        "max_lora_rank": next((rank for rank in RANKS if rank >= needed), RANKS[-1]),
        "max_loras": 8,  # in one batch, on the GPU
        "max_cpu_loras": 64,  # at hand, in main memory
    }
    if context.devices > 1:  # in processes of vLLM's own: Ray has set nothing aside for actors of its
        settings |= {"tensor_parallel_size": context.devices, "distributed_executor_backend": "mp"}

    def start() -> Engine:
        context.warm.drop("base")
        release()
        return Engine(_vllm().LLM(**settings, **_room(context)))

    return context.warm.get("vllm", json.dumps(settings), start)


def _room(context: Context) -> dict[str, Any]:
    """Return how much memory vLLM may take, of what is free now; on a CPU it compiles nothing, which would take minutes."""
    if context.device == "cpu":
        os.environ.setdefault("OMP_NUM_THREADS", str(context.threads))
        cache = min(CACHE, psutil.virtual_memory().available // 2)
        return {"kv_cache_memory_bytes": cache, "enforce_eager": True}
    free, total = import_module("torch").cuda.mem_get_info()
    return {"gpu_memory_utilization": SHARE * free / total}


def _answered(
    tasks: Sequence[GenerateTask], engine: Engine, since: float, pulse: Pulse
) -> Iterator[tuple[str, Generated]]:
    tokenizer = read_tokenizer(tasks[0].model.base, tasks[0].model.template)
    ends = end_tokens(Path(tasks[0].model.base), tokenizer)
    asked = [(task, prompt_tokens(tokenizer, [prompt.turns for prompt in task.prompts], task.system)) for task in tasks]
    rows = [(task, index, prompt) for task, prompts in asked for index, prompt in enumerate(prompts)]
    requests = {model: engine.adapter(model.tuned) for model in dict.fromkeys(task.model for task in tasks)}
    many, done = Counter(task.key for task, _, _ in rows), Counter[str]()
    made: list[Any] = []
    for start in range(0, len(rows), AT_ONCE):
        part = rows[start : start + AT_ONCE]
        for key in dict.fromkeys(task.key for task, _, _ in part):
            pulse.beat(key, done[key], many[key])
        made += engine.llm.generate(
            [{"prompt_token_ids": prompt} for _, _, prompt in part],
            [_sampling(task, index, ends) for task, index, _ in part],
            lora_request=[requests[task.model] for task, _, _ in part],
            use_tqdm=False,
        )
        done.update(task.key for task, _, _ in part)
    answers: dict[str, dict[tuple[int, int], tuple[list[int], Finish]]] = {task.key: {} for task in tasks}
    tokens = Counter({task.key: sum(map(len, prompts)) for task, prompts in asked})
    for (task, index, _), one in zip(rows, made, strict=True):
        for sample, output in enumerate(one.outputs):
            answers[task.key][index, sample] = list(output.token_ids), Finish(output.finish_reason)
            tokens[task.key] += len(output.token_ids)
    second = (time.perf_counter() - since) / tokens.total()
    for task, prompts in asked:
        yield task.key, generated(task, prompts, answers[task.key], tokenizer, second * tokens[task.key])


def _sampling(task: GenerateTask, index: int, ends: Sequence[int]) -> Any:
    """Return a prompt's decoding; its seed is its own, so that it does not matter what is sampled beside it."""
    decoding = task.decoding
    digest = hashlib.sha256(f"{task.seed} {task.prompts[index].prompt_id}".encode()).digest()
    own = taken(Path(task.model.base), decoding, model_defaults=task.settings.model_defaults)
    return _vllm().SamplingParams(
        n=decoding.samples,
        temperature=decoding.temperature,
        top_p=decoding.top_p,
        max_tokens=decoding.max_new_tokens,
        stop_token_ids=list(ends),
        seed=int.from_bytes(digest[:4], "big") if decoding.temperature > 0 else None,
        **{NAMES.get(name, name): value for name, value in own.items()},
    )
