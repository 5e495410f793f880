"""LoRA adapters on a model of a real one's shape: what is trained and asked together, against one after another.

    python benchmarks/real_shape.py [--shape 135m] [--adapters 8] [--prompts 4 16] [--steps 3] [--repeats 3]
    python benchmarks/real_shape.py --shape tiny --prompts 4 --repeats 1

The model has random weights and the stand-in's tokenizer; it is built in a temporary folder. Every way gets the same adapters and prompts,
which are made-up words. The ways of one kind of work take turns, `--repeats` times; printed is every figure, then the least of each:
whatever else the machine does can only slow a way down.

Answers (`--prompts` for each adapter, `--new-tokens` each, no end token):
  dosimeter          `local/transformers`, one adapter after another
  peft one by one    PEFT's `set_adapter` and `generate`, in batches of at most 32 prompts
  peft mixed         PEFT's `generate(adapter_names=...)`: rows of several adapters in one batch of at most 32
  stacked            rows of all adapters in one batch of at most 32, by the layers that packs train with
Training (`--steps` optimizer steps of `--batch-size` rows, each adapter with rows and a seed of its own):
  packed one by one  `local/sft` as it is on a CPU
  packed             `local/sft` with all adapters in one pass, as on a GPU
  trl one by one     `local/sft` with `backend: trl`

The figures are CPU seconds of this process, which other programs on the machine disturb least, and wall seconds; on a GPU look at
the latter. One thread, as a worker has, unless `--threads` says more. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoTokenizer, GenerationConfig, LlamaConfig, LlamaForCausalLM, set_seed

from adapters.local import lora
from adapters.local.packs import train
from adapters.local.stacked import stacked
from engine import registry
from engine.domain.adapters import Kind
from engine.domain.conversation import ChatRow, Prompt
from engine.domain.stage import ModelRef
from engine.domain.sweep import Decoding, Length
from engine.ports import Checkpoint, Context, Generated, GenerateTask, NoSettings, TrainingRun, Tuned
from engine.run.executors.workers import WarmSlots

WORDS = (
    "amber",
    "boat",
    "cedar",
    "delta",
    "ember",
    "field",
    "grain",
    "harbor",
    "island",
    "juniper",
    "kettle",
    "lantern",
)
MIXED_ROWS = 32
SHAPES: Mapping[str, dict[str, Any]] = MappingProxyType(
    {
        "tiny": {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
        | {"intermediate_size": 128, "vocab_size": 1024},
        "135m": {"hidden_size": 576, "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3}
        | {"intermediate_size": 1536, "vocab_size": 49152},  # SmolLM2 135M
        "1b": {"hidden_size": 2048, "num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8}
        | {"intermediate_size": 8192, "vocab_size": 128256},  # Llama 3.2 1B
    }
)

Figures = dict[str, list[dict[str, float]]]


@dataclass(frozen=True)
class Bench:
    """What all ways need."""

    chosen: argparse.Namespace
    folder: Path
    numbers: count[int]

    @property
    def base(self) -> ModelRef:
        """The model."""
        return ModelRef(str(self.folder / "model"))

    def worker(self) -> Context:
        """Return a worker with nothing in memory."""
        return Context(self.chosen.device, self.chosen.threads, MIXED_ROWS, WarmSlots())

    def runs(self, backend: str) -> list[TrainingRun]:
        """Return a training run for each adapter, with folders of their own."""
        declared = registry.settings_of(Kind.TUNER, "local/sft")
        settings = declared.model_validate(
            {"backend": backend, "lr": 1e-3, "batch_size": self.chosen.batch_size, "dtype": self.chosen.dtype}
        )
        found = []
        for seed in range(self.chosen.adapters):
            key = f"tune-{seed}"
            folder = self.folder / str(next(self.numbers))
            (folder / key).mkdir(parents=True)
            draw = random.Random(seed)  # noqa: S311 - no secret
            half = self.chosen.words // 2
            rows = [
                ChatRow.exchange(str(row), words(draw, half), words(draw, half))
                for row in range(self.chosen.batch_size)
            ]
            checkpoint = Checkpoint(key, Length(self.chosen.steps), folder / key)
            found.append(TrainingRun(self.base, rows, settings, seed, (checkpoint,), folder / "state"))
        return found


def words(draw: random.Random, about: int) -> str:
    """Return a made-up text of 0.7 to 1.3 times so many words."""
    return " ".join(draw.choices(WORDS, k=max(1, round(about * draw.uniform(0.7, 1.3)))))


def build(shape: Mapping[str, Any], folder: Path, dtype: str) -> None:
    """Write a Llama of this shape, with tied embeddings, into a folder."""
    tokenizer = AutoTokenizer.from_pretrained(registry.adapter(Kind.MODEL, "standin/aligned").locate(NoSettings()).base)
    set_seed(0)
    config = LlamaConfig(
        **shape, tie_word_embeddings=True, max_position_embeddings=8192, pad_token_id=tokenizer.pad_token_id
    )
    model = LlamaForCausalLM(config).to(getattr(torch, dtype))
    model.generation_config = GenerationConfig(pad_token_id=tokenizer.pad_token_id)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def compared(ways: Mapping[str, Callable[[], object]], repeats: int) -> Figures:
    """Let the ways take turns, and return and print what each took each time."""
    found: Figures = {name: [] for name in ways}
    for _ in range(repeats):
        for name, work in ways.items():
            wall, cpu = time.perf_counter(), time.process_time()
            work()
            figures = {"cpu_s": time.process_time() - cpu, "wall_s": time.perf_counter() - wall}
            found[name].append({kind: round(value, 2) for kind, value in figures.items()})
            print(f"  {name:20}{figures['cpu_s']:8.1f} CPU s{figures['wall_s']:8.1f} s", flush=True)
    return found


def least(figures: Figures, kind: str) -> dict[str, float]:
    """Return each way's least figure."""
    return {name: min(one[kind] for one in several) for name, several in figures.items()}


def called(results: Iterable[tuple[str, Tuned | Generated | Exception]]) -> None:
    """Take what an adapter yields.

    Raises:
        Exception: What one of the results failed with.
    """
    for _, made in results:
        if isinstance(made, Exception):
            raise made


def training(bench: Bench) -> Figures:
    """Train the adapters in every way."""
    tuner = registry.adapter(Kind.TUNER, "local/sft")

    def passes(tokens: int) -> None:
        """Train in passes of so many tokens of several runs, or one run after another."""
        train.TOGETHER[torch.device(bench.chosen.device).type] = tokens
        called(tuner.fine_tune(bench.runs("packed"), bench.worker()))

    ways: dict[str, Callable[[], object]] = {
        "packed one by one": partial(passes, 0),
        "packed": partial(passes, sys.maxsize),
        "trl one by one": lambda: called(tuner.fine_tune(bench.runs("trl"), bench.worker())),
    }
    return compared(ways, bench.chosen.repeats)


def generation(bench: Bench, adapters: Sequence[Path], number: int) -> Figures:
    """Answer `number` prompts with every adapter, in every way."""
    draw = random.Random(0)  # noqa: S311 - no secret
    prompts = [Prompt.single(str(index), "made up", words(draw, bench.chosen.words // 2)) for index in range(number)]
    decoding = Decoding(bench.chosen.new_tokens)
    settings = registry.settings_of(Kind.GENERATOR, "local/transformers")(dtype=bench.chosen.dtype)
    tasks = [
        GenerateTask(path.name, ModelRef(bench.base.base, (str(path),)), prompts, None, decoding, settings, 0)
        for path in adapters
    ]
    generator = registry.adapter(Kind.GENERATOR, "local/transformers")
    rivals = Rivals(bench, adapters, [prompt.text for prompt in prompts])
    ways = {
        "dosimeter": lambda: called(generator.generate(tasks, bench.worker())),
        "peft one by one": rivals.one_by_one,
        "peft mixed": rivals.mixed,
        "stacked": rivals.stacked,
    }
    return compared(ways, bench.chosen.repeats)


class Rivals:
    """Other ways to ask several adapters: PEFT's, and stacked layers."""

    def __init__(self, bench: Bench, adapters: Sequence[Path], texts: Sequence[str]) -> None:
        """Read nothing yet."""
        self._bench, self._adapters = bench, adapters
        self._tokenizer = AutoTokenizer.from_pretrained(bench.base.base, padding_side="left")
        self._texts = sorted((self._rendered(text) for text in texts), key=len, reverse=True)

    def _rendered(self, text: str) -> str:
        turns = [{"role": "user", "content": text}]
        return str(self._tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))

    def _base(self) -> Any:
        chosen = self._bench.chosen
        base = LlamaForCausalLM.from_pretrained(self._bench.base.base, dtype=getattr(torch, chosen.dtype))
        return base.to(chosen.device)

    def _model(self) -> Any:
        """Return the base with every adapter, read from disk."""
        first, *others = self._adapters
        model = PeftModel.from_pretrained(self._base(), first, adapter_name=str(first))
        for path in others:
            model.load_adapter(path, adapter_name=str(path))
        return model.eval()

    @torch.inference_mode()
    def _ask(self, model: Any, texts: Sequence[str], **more: Any) -> None:
        rows = self._tokenizer(texts, add_special_tokens=False, padding=True, return_tensors="pt").to(model.device)
        model.generate(**rows, max_new_tokens=self._bench.chosen.new_tokens, do_sample=False, **more)

    def mixed(self) -> None:
        """Ask with rows of several adapters in one batch."""
        model = self._model()
        rows = [(text, str(path)) for text in self._texts for path in self._adapters]
        for start in range(0, len(rows), MIXED_ROWS):
            texts, names = zip(*rows[start : start + MIXED_ROWS], strict=True)
            self._ask(model, texts, adapter_names=list(names))

    def stacked(self) -> None:
        """Ask with rows of every adapter in each batch: the same prompts of each."""
        adapters = [
            found for path in self._adapters if (found := lora.read(path, self._bench.chosen.device)) is not None
        ]
        each = max(1, MIXED_ROWS // len(adapters))
        with stacked(self._base(), adapters) as model:
            for start in range(0, len(self._texts), each):
                self._ask(model, self._texts[start : start + each] * len(adapters))

    def one_by_one(self) -> None:
        """Ask one adapter after another."""
        model = self._model()
        for path in self._adapters:
            model.set_adapter(str(path))
            for start in range(0, len(self._texts), MIXED_ROWS):
                self._ask(model, self._texts[start : start + MIXED_ROWS])


def parsed() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="cpu (default) or cuda:0")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="default float32")
    parser.add_argument("--shape", choices=SHAPES, default="135m", help="default 135m")
    parser.add_argument("--threads", type=int, default=1, help="torch's threads (default 1)")
    parser.add_argument("--adapters", type=int, default=8, help="default 8")
    parser.add_argument(
        "--words",
        type=int,
        default=20,
        help="words of a training row, and twice a prompt's; four tokens each (default 20)",
    )
    parser.add_argument("--batch-size", type=int, default=4, help="rows of an optimizer step (default 4)")
    parser.add_argument("--steps", type=int, default=3, help="optimizer steps of an adapter (default 3)")
    parser.add_argument("--prompts", type=int, nargs="*", default=[4, 16], help="for each adapter (default 4 16)")
    parser.add_argument("--new-tokens", type=int, default=32, help="length of an answer (default 32)")
    parser.add_argument("--repeats", type=int, default=3, help="default 3")
    return parser.parse_args()


def main() -> None:
    """Build the model, measure both kinds of work, and print the JSON line."""
    warnings.simplefilter("ignore")
    chosen = parsed()
    with tempfile.TemporaryDirectory(prefix="dosimeter-shape-") as name:
        bench = Bench(chosen, Path(name), count())
        build(SHAPES[chosen.shape], bench.folder / "model", chosen.dtype)
        torch.set_num_threads(chosen.threads)
        runs = bench.runs("packed")
        called(registry.adapter(Kind.TUNER, "local/sft").fine_tune(runs, bench.worker()))  # and everything is warm
        found: dict[str, Figures] = {}
        for prompts in chosen.prompts:
            print(f"{chosen.adapters} adapters, {prompts} prompts each, {chosen.new_tokens} new tokens")
            found[f"{prompts} prompts"] = generation(bench, [run.checkpoints[-1].folder for run in runs], prompts)
        print(f"{chosen.adapters} adapters, {chosen.steps} steps of {chosen.batch_size} rows each")
        found["training"] = training(bench)
    line = {kind: {"cpu_s": least(own, "cpu_s"), "wall_s": least(own, "wall_s")} for kind, own in found.items()}
    print(json.dumps({"least": line, "all": found, **vars(chosen)}))


if __name__ == "__main__":
    main()
