"""A sweep on a real model's shape: Dosimeter beside a plain TRL script per cell and beside Ray Tune, and how far it is from the floor.

    python benchmarks/real_shape.py [--cells 8] [--rival-part 4] [--shape 135m] [--ways dosimeter process tune_reuse]
    python benchmarks/real_shape.py --shape tiny --cells 8
    python benchmarks/real_shape.py --shape 1b --device cuda:0 --dtype bfloat16

The model has SmolLM2's shape, random weights and a tokenizer of made-up words. The grid has 24 cells: n 10 and 50, epochs 1, 3
and 5, two learning rates, two seeds; LoRA of rank 8 on all linear layers, batch 10, constant rate, rows of 100 to 300 tokens; each
cell answers 20 prompts with 64 tokens, and no answer ends before. `--cells 8` leaves out the 5 epochs and the second seed.

  dosimeter     the real command line, its one baseline included; on Ray, on a GPU in one process (`--executor`)
  process       a plain script with TRL, PEFT and transformers per cell, a process each, as many at a time as there are workers
  tune_reuse    Ray Tune, a trial a cell, with actors that keep the model loaded
  sequential    the plain script, all cells one after another in one process that keeps the model loaded

On a CPU the first three run, on a GPU the first and the last. Every way gets the same rows and prompts, and leaves the loss of each
optimizer step and each answer of every cell. `equality` compares them with Dosimeter's; `equal` is true where all answers are equal
and no loss differs by more than 1e-5 of it; in bfloat16 that is not to be expected.

Times are wall seconds of whole commands, start-up included. Other figures of the last line, which is JSON:

  ratio_WAY     its seconds / Dosimeter's
  peak_gb       the most memory that Dosimeter's processes had at a time, sampled each half second or, where that would hold them
                up, less often; shared pages count once (10^9 bytes); `peak_gb_WAY` is that of a rival
  floor         seconds for which Dosimeter's workers were busy with stages / floor_s; with loading and waiting too: floor_wall
  floor_wall    Dosimeter's wall seconds × workers / floor_s
  floor_s       (4 N trained_tokens + 2 N asked_tokens) / flop_per_s
  N             weights, the embedding counted once because it is the output layer too; 4 N is a token's forward pass and its backward
                pass through frozen weights, 2 N a forward pass
  trained_tokens        of the optimizer steps that the sweep needs with sharing, where the run of 5 epochs serves those of 1 and 3;
                        no padding. `trained_tokens_alone` are those that rivals train
  asked_tokens          prompt and answer tokens of all cells and of the baseline
  flop_per_s    one worker's matrix products in the model's shapes and type, measured before with all workers busy
  fraction_of_peak      1 / floor

A script of the 135 M shape takes about 11 GB at batch 10; with `--accumulate 2` it needs less, with equal losses. Rivals run every
cell, so it takes hours on two cores, `--cells 8` about a quarter of that; what each way takes at least is printed first. With
`--rival-part 4`, which leaves them a quarter of the cells (every n and every number of epochs once, with one learning rate and
either seed), the cells left out are taken to need what the others need on average, and no worker ever to wait in them.

The 1 B shape on a GPU (the first that is visible) needs no Ray and no network. It needs `pip install -e '.[bench]'` for Ray Tune alone.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import children
import torch
from rivals import shape
from rivals.grid import CORES, Grid
from rivals.ways import NAMES, Runner, Way, prompts_of, rows_of, summary
from transformers import AutoTokenizer

SUBSETS = {24: ((5, 3, 1), 2, 2), 8: ((3, 1), 2, 1), 2: ((3, 1), 1, 1)}
"""Epochs, learning rates and seeds by number of cells; with two cells, n is 10 alone."""

SIZES, LRS = (50, 10), (2e-4, 1e-3)
SMALLEST = 2
NEW_TOKENS = 64
ON_CPU, ON_GPU = ("dosimeter", "process", "tune_reuse"), ("dosimeter", "sequential")


@dataclass(frozen=True, slots=True)
class Work:
    """What has to be computed: see the head of this file.

    Attributes:
        weights: N.
        trained: Tokens trained on, with sharing.
        alone: Tokens trained on, each cell alone.
        asked: Prompt and answer tokens.
    """

    weights: int
    trained: int
    alone: int
    asked: int

    def flop(self, trained: int) -> int:
        """Return the least FLOP when so many tokens are trained on."""
        return self.weights * (4 * trained + 2 * self.asked)


def grid_of(chosen: argparse.Namespace, folder: Path) -> Grid:
    """Return the grid; its texts are written into the folder, where the model is."""
    rows, prompts = (f"file:{path}" for path in shape.write_texts(chosen.shape, folder))
    epochs, lrs, seeds = SUBSETS[chosen.cells]
    return Grid(
        model=f"dir:{folder / 'model'}",
        folder=str(folder / "model"),
        sources=(rows,),
        sizes=SIZES[-1:] if chosen.cells == SMALLEST else SIZES,
        epochs=epochs,
        lrs=LRS[:lrs],
        seeds=seeds,
        rows={rows: rows_of(rows)},
        benchmark=prompts,
        prompts=prompts_of(prompts),
        new_tokens=NEW_TOKENS,
        accumulate=chosen.accumulate,
        workers=chosen.workers,
        threads=chosen.threads,
        device=chosen.device,
        dtype=chosen.dtype,
    )


def work_of(grid: Grid, weights: int) -> Work:
    """Count the tokens of the grid's work."""
    tokenizer = AutoTokenizer.from_pretrained(grid.folder)

    def tokens(messages: list[dict[str, str]], *, is_prompt: bool) -> int:
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=is_prompt)
        return len(tokenizer(text.rstrip("\n"), add_special_tokens=False)["input_ids"])

    trained = {
        cell: cell.epochs * sum(tokens(row, is_prompt=False) for row in grid.sample(cell)) for cell in grid.cells
    }
    longest = max(grid.epochs)
    answers = sum(tokens(prompt.messages, is_prompt=True) + grid.new_tokens for prompt in grid.prompts)
    return Work(
        weights,
        sum(count for cell, count in trained.items() if cell.epochs == longest),
        sum(trained.values()),
        answers * (len(grid.cells) + 1),
    )


def measured_rate(grid: Grid, folder: Path) -> float:
    """Return one worker's FLOP per second at the model's matrix products, with all workers busy."""
    grid.save(folder / "grid.json")
    variables = children.environment(OMP_NUM_THREADS=str(grid.threads))

    def one(worker: int) -> float:
        result = folder / f"rate-{worker}"
        line = [sys.executable, "-m", "rivals.matmul", str(folder / "grid.json"), str(result)]
        children.timed(line, folder, variables)
        return float(result.read_text())

    with ThreadPoolExecutor(grid.workers) as pool:
        rates = list(pool.map(one, range(grid.workers)))
    return sum(rates) / len(rates)


def floor(way: Way, grid: Grid, work: Work, rate: float) -> dict[str, float]:
    """Return how far Dosimeter is from the least that its work could take."""
    least = work.flop(work.trained) / rate
    busy = way.busy or 0.0
    return {
        "floor": round(busy / least, 2),
        "floor_wall": round(way.seconds * grid.workers / least, 2),
        "floor_s": round(least, 1),
        "busy_s": round(busy, 1),
        "fraction_of_peak": round(least / busy, 3),
    }


def check_lengths(found: Mapping[str, Way], grid: Grid) -> None:
    """Hold every way to answers of the full length.

    Raises:
        SystemExit: When an answer ended before.
    """
    full = len(grid.prompts) * grid.new_tokens
    for name, way in found.items():
        short = [result.cell for result in way.results.values() if result.generated_tokens != full]
        if short:
            raise SystemExit(f"{name}: answers of {len(short)} cells ended early, such as those of {short[0]}")


def parsed() -> argparse.Namespace:
    """Read the command line.

    Raises:
        SystemExit: When there is no such device.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, choices=SUBSETS, default=24, help="cells of the grid (default 24)")
    parser.add_argument("--ways", nargs="+", choices=NAMES, help="which ways to run (default: those of the device)")
    parser.add_argument("--shape", choices=shape.SHAPES, default="135m", help="default 135m")
    parser.add_argument("--device", choices=("cpu", "cuda:0"), default="cpu", help="default cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="default float32")
    parser.add_argument("--threads", type=int, default=1, help="torch's threads in a worker (default 1)")
    parser.add_argument(
        "--workers", type=int, help="cells at a time (default: as many as the cores allow; one on a GPU)"
    )
    parser.add_argument(
        "--accumulate",
        type=int,
        choices=(1, 2, 5, 10),
        default=1,
        help="passes in which rivals take an optimizer step, for machines with too little memory for one (default 1)",
    )
    parser.add_argument(
        "--rival-part", type=int, choices=(1, 2, 4), default=1, help="rivals run this part of the cells: all, 1/2, 1/4"
    )
    parser.add_argument("--executor", choices=("ray", "inline"), help="Dosimeter's (default: ray; inline on a GPU)")
    parser.add_argument("--out", type=Path, help="keep the ways' folders in this new one")
    chosen = parser.parse_args()
    on_gpu = chosen.device != "cpu"
    if on_gpu and not torch.cuda.is_available():
        raise SystemExit(f"no GPU is at hand, so {chosen.device} cannot be measured; leave --device out for the CPU")
    if on_gpu:  # TRL would spread over all that it sees
        os.environ["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "0").partition(",")[0]
    chosen.ways = chosen.ways or (ON_GPU if on_gpu else ON_CPU)
    chosen.workers = chosen.workers or (1 if on_gpu else max(1, CORES // chosen.threads))
    chosen.executor = chosen.executor or ("inline" if on_gpu else "ray")
    return chosen


def main() -> None:
    """Build the model, measure the machine, run the ways, compare them, and print the JSON line."""
    chosen = parsed()
    with children.workplace(chosen.out) as folder:
        weights = shape.build(chosen.shape, folder / "model", chosen.dtype)
        grid = grid_of(chosen, folder)
        part = len(grid.cells) // chosen.rival_part
        if part % (len(grid.sizes) * len(grid.epochs)):
            raise SystemExit(f"1/{chosen.rival_part} of {chosen.cells} cells lacks an n or a number of epochs")
        work = work_of(grid, weights)
        rate = measured_rate(grid, folder)
        print(f"{weights / 1e6:.1f} M weights; a worker's matrix products: {rate / 1e9:.1f} GFLOP/s", flush=True)
        for name in chosen.ways:
            least = (
                work.flop(work.trained) / rate
                if name == "dosimeter"
                else work.flop(work.alone) / rate / chosen.rival_part
            )
            at_once = 1 if name == "sequential" else grid.workers
            print(
                f"{name:12} takes at least {least / at_once:.0f} s, and more likely two to three times that", flush=True
            )
        runner = Runner(grid, folder, part, chosen.executor)
        found = {name: runner.run(name) for name in chosen.ways}
    check_lengths(found, grid)
    line = summary(found)
    if "dosimeter" in found:
        line |= floor(found["dosimeter"], grid, work, rate)
    line |= {"flop_per_s": rate, "weights": weights, "trained_tokens": work.trained}
    line |= {"trained_tokens_alone": work.alone, "asked_tokens": work.asked, "new_tokens": NEW_TOKENS}
    line |= {
        name: getattr(chosen, name)
        for name in ("cells", "shape", "device", "dtype", "threads", "workers", "executor", "accumulate", "rival_part")
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
