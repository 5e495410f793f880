"""Many LoRA adapters at once against one at a time, on a Llama of real size with random weights. Made for a GPU.

    python benchmarks/packs_gpu.py [--shape 1b] [--members 16]
    python benchmarks/packs_gpu.py --device cpu --shape tiny --members 4 --words 20 --prompts 8 --new-tokens 8

Training: 16 cells of 10, 25, 50 and 100 examples, which differ in learning rate and seed too, by `local/sft` as one pack
(`backend: packed`) and as one TRL run after another (`backend: trl`). Generation: the 16 adapters answer the same prompts
by `local/transformers` in one call, and in one call each. The adapters are called as the engine calls them, in this
process; there is no Ray. The model is built in a temporary folder: 2.5 GB for `1b`, 6.4 GB for `3b`, 16 GB for `8b`.

Both ways are warmed up before they are timed. Printed are wall seconds, tokens trained or generated per second, the peak
of the device's memory, and the share of the device's measured matmul rate that the work's arithmetic comes to: 4 FLOP a
weight and token in training, 2 in generation, as in `rivals/floor.py`. Losses and answers of the two ways are compared.
The last line is JSON. It takes some minutes on one H100 with `1b`, and seconds on a CPU with `tiny`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch
from packs.model import SHAPES, Weights, build, matmul_rate
from packs.work import Timed, answer, tasks, timed, trajectories, tune
from rivals.floor import Floor
from transformers import AutoTokenizer

from adapters.local import chat
from engine.domain.stage import ModelRef
from engine.domain.sweep import GenerateRecipe, TuneRecipe
from engine.ports import Context, Generated, Trajectory, Tuned
from engine.run.executors.hosts import WarmSlots

T = TypeVar("T")
MATMUL_SIDE_GPU, MATMUL_SIDE_CPU = 8192, 1024


@dataclass(frozen=True, slots=True)
class Bench:
    """What all parts of the benchmark need.

    Attributes:
        chosen: The command line.
        base: The model.
        weights: How many weights it has.
        context: What the adapters get.
        rate: The device's measured FLOP/s.
        folder: Where tuned adapters go.
    """

    chosen: argparse.Namespace
    base: ModelRef
    weights: Weights
    context: Context
    rate: float
    folder: Path

    def runs(self, backend: str, members: int, name: str) -> list[Trajectory]:
        """Return the cells to tune with one of the backends, in a folder of their own."""
        settings = TuneRecipe(
            backend="packed" if backend == "packed" else "trl",
            rank=self.chosen.rank,
            epochs=self.chosen.epochs,
            lr=1e-4,
            batch_size=self.chosen.batch_size,
            max_length=2048,
            dtype=self.chosen.dtype,
        )
        return trajectories(self.base, settings, members, self.chosen.words, self.folder / name)

    def timed(self, work: Callable[[], T]) -> tuple[T, Timed]:
        """Do some work and say what it took."""
        with timed(self.context.device) as taken:
            made = work()
        return made, taken

    def line(self, name: str, taken: Timed, tokens: int, flop: float) -> dict[str, float]:
        """Print and return the figures of one way."""
        share = flop / taken.seconds / self.rate
        print(
            f"{name:24}{taken.seconds:10.2f} s{tokens / taken.seconds:12.0f} tokens/s{taken.memory_gb:9.2f} GB"
            f"{share:9.1%} of peak",
            flush=True,
        )
        return {
            "seconds": round(taken.seconds, 3),
            "tokens_per_s": round(tokens / taken.seconds, 1),
            "memory_gb": round(taken.memory_gb, 3),
            "share_of_peak": round(share, 5),
        }


def training(bench: Bench) -> tuple[dict[str, object], list[Trajectory]]:
    """Tune the cells both ways; return the figures, and the cells whose adapters the pack has left."""
    found: dict[str, object] = {}
    tuned: dict[str, dict[str, Tuned]] = {}
    seconds: dict[str, float] = {}
    packed: list[Trajectory] = []
    for backend in ("packed", "trl"):
        tune(bench.runs(backend, 1, f"warm-{backend}"), bench.context)
        runs = bench.runs(backend, bench.chosen.members, backend)
        floor = _floor(bench, runs)
        tuned[backend], taken = bench.timed(partial(tune, runs, bench.context))
        found[backend] = bench.line(f"training, {backend}", taken, floor.train_tokens, floor.train_flop())
        seconds[backend] = taken.seconds
        packed = packed or runs
    found["ratio"] = round(seconds["trl"] / seconds["packed"], 2)
    found["largest_loss_gap"] = round(_loss_gap(*tuned.values()), 6)
    return found, packed


def _floor(bench: Bench, runs: Sequence[Trajectory]) -> Floor:
    """Count the tokens that the runs train on, every epoch."""
    tokenizer = AutoTokenizer.from_pretrained(bench.base.base)
    whole = answers = 0
    for run in runs:
        settings = run.cuts[-1].settings
        for row in chat.training_rows(tokenizer, run.rows, settings.max_length):
            whole += settings.epochs * len(row["input_ids"])
            answers += settings.epochs * sum(label != chat.IGNORED for label in row["labels"])
    return Floor(bench.rate, bench.weights.body, bench.weights.head, whole, answers, len(runs))


def _loss_gap(packed: Mapping[str, Tuned], trl: Mapping[str, Tuned]) -> float:
    """The largest difference of any step's loss between the two ways, in nats."""
    pairs = zip(packed.values(), (trl[key.replace("packed", "trl")] for key in packed), strict=True)
    return max(
        abs(mine.loss - other.loss) for one, two in pairs for mine, other in zip(one.steps, two.steps, strict=True)
    )


def generation(bench: Bench, runs: Sequence[Trajectory]) -> dict[str, object]:
    """Answer with all adapters in one call, and in a call each."""
    settings = GenerateRecipe(max_new_tokens=bench.chosen.new_tokens, dtype=bench.chosen.dtype)
    asked = tasks(runs, bench.chosen.prompts, settings)
    answer([[replace(asked[0], key="warm")]], bench.context)
    found: dict[str, object] = {}
    made: dict[str, dict[str, Generated]] = {}
    seconds: dict[str, float] = {}
    for name, batches in (("mixed", [asked]), ("one at a time", [[task] for task in asked])):
        made[name], taken = bench.timed(partial(answer, batches, bench.context))
        responses = [response for generated in made[name].values() for response in generated.responses]
        new = sum(response.generated_tokens for response in responses)
        read = sum(response.prompt_tokens for response in responses)
        flop = _floor(bench, ()).generate_flop(read, new, len(responses))
        found[name.replace(" ", "_")] = bench.line(f"generation, {name}", taken, new, flop)
        seconds[name] = taken.seconds
    found["ratio"] = round(seconds["one at a time"] / seconds["mixed"], 2)
    found["equal_responses"] = round(_equal(made["mixed"], made["one at a time"]), 4)
    return found


def _equal(mixed: Mapping[str, Generated], alone: Mapping[str, Generated]) -> float:
    same = [
        one.text == two.text
        for key, made in mixed.items()
        for one, two in zip(made.responses, alone[key].responses, strict=True)
    ]
    return sum(same) / len(same)


def parsed() -> argparse.Namespace:
    """Read the command line."""
    gpu = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda:0" if gpu else "cpu", help="cuda:0 or cpu (default: what is there)")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="bfloat16", help="default bfloat16")
    parser.add_argument("--shape", choices=SHAPES, default="1b", help="shape of the model (default 1b)")
    parser.add_argument("--layers", type=int, help="layers, other than the shape's")
    parser.add_argument("--members", type=int, default=16, help="cells (default 16)")
    parser.add_argument("--words", type=int, default=100, help="words of a training row (default 100)")
    parser.add_argument("--rank", type=int, default=8, help="LoRA rank (default 8)")
    parser.add_argument("--epochs", type=int, default=3, help="default 3")
    parser.add_argument("--batch-size", type=int, default=5, help="examples per forward pass of a cell (default 5)")
    parser.add_argument("--prompts", type=int, default=64, help="prompts for each adapter, at most 110 (default 64)")
    parser.add_argument("--new-tokens", type=int, default=128, help="longest answer (default 128)")
    return parser.parse_args()


def main() -> None:
    """Build the model, measure both kinds of work, and print the JSON line."""
    chosen = parsed()
    shape = SHAPES[chosen.shape]
    shape = replace(shape, layers=chosen.layers or shape.layers)
    dtype = getattr(torch, chosen.dtype)
    on_cpu = chosen.device == "cpu"
    with tempfile.TemporaryDirectory(prefix="dosimeter-packs-") as name:
        folder = Path(name)
        weights = build(shape, folder / "model", chosen.device, dtype)
        threads = torch.get_num_threads()
        bench = Bench(
            chosen=chosen,
            base=ModelRef(str(folder / "model")),
            weights=weights,
            context=Context(chosen.device, threads, chosen.prompts, WarmSlots()),
            rate=matmul_rate(chosen.device, dtype, MATMUL_SIDE_CPU if on_cpu else MATMUL_SIDE_GPU),
            folder=folder,
        )
        device = "cpu" if on_cpu else torch.cuda.get_device_name()
        print(f"{device}: {bench.rate / 1e12:.2f} TFLOP/s; {(weights.body + weights.head) / 1e6:,.1f} M linear weights")
        trained, runs = training(bench)
        answered = generation(bench, runs)
    figures = {
        "ratio_training": trained["ratio"],
        "ratio_generation": answered["ratio"],
        "device_name": device,
        "tflop_per_s": round(bench.rate / 1e12, 3),
        "linear_weights": weights.body + weights.head,
        **vars(chosen),
    }
    print(json.dumps(figures | {"training": trained, "generation": answered}))


if __name__ == "__main__":
    main()
