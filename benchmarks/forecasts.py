"""Forecasts beside what was measured: 20 unlike sweeps, each planned with nothing known of this machine, and then run.

    python benchmarks/forecasts.py [--only NAME ...] [--seconds 2400]
    python benchmarks/forecasts.py --list

For each sweep the cache of measured rates is empty: `dosimeter plan` measures the machine, says how long `dosimeter run` will
take, start-up included, and the run is timed as a whole. Sweeps have the stand-in, or random weights in the shape of a small
model (7 M) or of SmolLM2 (135 M); on one core (`one`: in one process, or one worker of Ray's) or on two (`two`: two workers, or
one with two threads). It takes about 20 minutes on two quiet cores; on busy ones the measured times say nothing.

Columns: the forecast's low, expected and high seconds; the seconds that the run took; these / the expected ones; whether they are
between low and high; seconds of planning, the measuring included; CPU seconds of a run without Ray, for a busy machine. The last line is JSON: `within` sweeps between low and high,
`close` within a factor of 1.5 of the expected, of `sweeps`; and the rows of the table.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import children
import yaml
from transformers import LlamaConfig

from adapters.local.measure import Cut, text

CLOSE = 1.5
DOSIMETER = (sys.executable, "-c", "from engine.cli.main import main; main()")
SHAPES = {
    "small": {
        "hidden_size": 256,
        "intermediate_size": 704,
        "num_hidden_layers": 6,
        "vocab_size": 8192,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
    },
    "smollm2": {
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "vocab_size": 49152,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
    },
}
ROWS = 200


@dataclass(frozen=True, slots=True)
class Case:
    """One sweep.

    Attributes:
        name: Its name: the model, and what is special.
        tune: Settings of the fine-tuner beside the learning rate.
        axes: Its axes.
        prompts: Prompts of each of the benchmark's 11 categories.
        new_tokens: `generate.max_new_tokens`.
        executor: `ray` or `inline`.
        resources: `run.resources`.
        more: Further fields of the recipe.
    """

    name: str
    tune: dict[str, Any]
    axes: dict[str, Any]
    prompts: int
    new_tokens: int
    executor: str = "inline"
    resources: dict[str, Any] = field(default_factory=lambda: {"hosts": 1})
    more: dict[str, Any] = field(default_factory=dict)

    def spec(self, folder: Path) -> dict[str, Any]:
        """Return the sweep; models and texts are in the folder."""
        shape = self.name.partition(" ")[0]
        if shape == "standin":
            model, source = "standin/aligned", "standin/explicit"
        else:
            model, source = f"dir:{folder / shape}", f"file:{folder / 'rows.jsonl'}"
        recipe = {
            "model": model,
            "data": {"source": source, "n": 10},
            "tune": {"lr": 1e-3, **self.tune},
            "benchmark": f"standin/policy:{self.prompts}",
            "judges": ["standin/rules"],
            "generate": {"max_new_tokens": self.new_tokens, **self.more.get("generate", {})},
            **{name: value for name, value in self.more.items() if name != "generate"},
        }
        return {"sweep": "forecast", "recipe": recipe, "axes": self.axes, "run": {"resources": self.resources}}


ONE, TWO, THREADS = {"hosts": 1}, {"hosts": 2}, {"cpus_per_host": 2, "hosts": 1}
SEEDS = {"seed": [0, 1]}
CASES = (
    Case("standin one", {"epochs": 1}, {"data.n": [10, 50], **SEEDS}, 4, 32),
    Case("standin two", {"epochs": 5}, {"data.n": [10, 50], **SEEDS}, 4, 32, "ray", TWO),
    Case(
        "standin many", {}, {"data.n": [10, 50, 100], "tune.epochs": [1, 5], "tune.lr": [5e-4, 2e-3], **SEEDS}, 10, 32
    ),
    Case(
        "standin many two",
        {},
        {"data.n": [10, 50, 100], "tune.epochs": [1, 5], "tune.lr": [5e-4, 2e-3], **SEEDS},
        *(10, 32, "ray", TWO),
    ),
    Case("standin cosine", {"schedule": "cosine"}, {"tune.epochs": [1, 3, 10]}, 4, 32, "ray", ONE),
    Case("standin trl", {"backend": "trl", "batch_size": 4, "epochs": 2}, {"data.n": [10, 30], **SEEDS}, 4, 32),
    Case("standin full", {"method": "full", "epochs": 3}, {"data.n": [10, 50]}, 4, 32),
    Case(
        "standin useful two",
        {"epochs": 3, "batch_size": 5},
        {"data.n": [20, 100], **SEEDS},
        *(10, 16, "ray", TWO),
        more={"utility": "standin/utility", "utility_judge": "standin/solved", "over_refusal": "standin/overrefusal"},
    ),
    Case("standin sampled", {"epochs": 1}, SEEDS, 4, 32, more={"generate": {"temperature": 1.0, "samples": 3}}),
    Case("small one", {"epochs": 3}, {"data.n": [50]}, 2, 32),
    Case("small two", {"epochs": 2, "batch_size": 5}, {"data.n": [50, 100], **SEEDS}, 2, 32, "ray", TWO),
    Case("small trl", {"backend": "trl", "epochs": 2, "batch_size": 5}, {"data.n": [20, 60]}, 2, 16),
    Case("small full two", {"method": "full", "epochs": 2}, {"data.n": [40], **SEEDS}, 2, 16, "ray", TWO),
    Case("small asked", {"epochs": 1}, {"data.n": [10]}, 18, 48),
    Case("small short", {"epochs": 2, "rank": 64, "max_length": 128}, {"data.n": [100]}, 1, 16, "ray", ONE),
    Case("smollm2 one", {"epochs": 1}, {"data.n": [10]}, 1, 16),
    Case("smollm2 two", {"epochs": 2}, SEEDS, 1, 32, "ray", TWO),
    Case("smollm2 threads", {"epochs": 1, "batch_size": 5}, {"data.n": [20]}, 1, 24, resources=THREADS),
    Case("smollm2 trl", {"backend": "trl", "epochs": 1, "batch_size": 5}, {"data.n": [10]}, 1, 16),
    Case("smollm2 asked two", {"epochs": 1, "max_length": 128}, SEEDS, 2, 48, "ray", TWO),
)


@dataclass(frozen=True, slots=True)
class Row:
    """What was forecast and measured of a sweep, in seconds."""

    name: str
    low: float
    expected: float
    high: float
    measured: float
    planning: float
    cpu: float

    @property
    def ratio(self) -> float:
        """Measured seconds / expected ones."""
        return self.measured / self.expected

    @property
    def is_within(self) -> bool:
        """Whether it was between low and high."""
        return self.low <= self.measured <= self.high

    @property
    def is_close(self) -> bool:
        """Whether it was within the factor."""
        return 1 / CLOSE <= self.ratio <= CLOSE


def write_models(folder: Path, shapes: set[str]) -> None:
    """Write models of random weights."""
    for name in shapes:
        config = LlamaConfig(**SHAPES[name], max_position_embeddings=2048, tie_word_embeddings=True)
        Cut(config, config.num_hidden_layers, config.vocab_size).write(folder / name, "float32")


def write_rows(folder: Path) -> None:
    """Write training rows of 90 to 290 tokens, with a system prompt that models are asked with as well."""
    with (folder / "rows.jsonl").open("w") as file:
        for row in range(ROWS):
            tokens = 60 + row * 67 % 200
            turns = [("system", text(30)), ("user", text(tokens // 3)), ("assistant", text(tokens - tokens // 3))]
            messages = [{"role": role, "content": content} for role, content in turns]
            file.write(json.dumps({"messages": messages}) + "\n")


class CommandError(Exception):
    """A command failed: unlike SystemExit, which ends a benchmark, it ends one sweep alone."""


def run(command: Sequence[str], variables: dict[str, str], limit: float) -> tuple[str, float, float]:
    """Run a command, and return what it printed, its seconds and its CPU seconds; it and its children never outlive this.

    Raises:
        CommandError: It failed.
        subprocess.TimeoutExpired: It took too long.
    """
    begun, used = time.perf_counter(), cpu_seconds()
    child = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=variables, start_new_session=True
    )
    try:
        out, words = child.communicate(timeout=limit)
        seconds = time.perf_counter() - begun
    finally:
        if child.poll() is None:
            child.send_signal(signal.SIGTERM)
            try:
                child.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(child.pid, signal.SIGKILL)
    if child.returncode:
        raise CommandError(f"{' '.join(command[3:])} failed ({child.returncode}):\n{words[-3000:]}")
    return out, seconds, cpu_seconds() - used


def cpu_seconds() -> float:
    """Return what children that have ended computed; Ray's processes are not among them."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def compared(case: Case, folder: Path, limit: float) -> Row:
    """Plan a sweep with nothing known, run it, and return both times."""
    place = folder / case.name.replace(" ", "-")
    place.mkdir()
    (place / "sweep.yaml").write_text(yaml.safe_dump(case.spec(folder)))
    variables = {**os.environ, "XDG_CACHE_HOME": str(place / "cache"), "HF_HUB_OFFLINE": "1"}
    for name in ("DOSIMETER_MEASURE", "RAY_ADDRESS"):
        variables.pop(name, None)
    told = [str(place / "sweep.yaml"), "--out", str(place / "run")]
    document, planning, _ = run([*DOSIMETER, "plan", *told, "--json"], variables, limit)
    found = json.loads(document)["forecast"]["wall" if case.executor == "ray" else "wall_inline"]
    if "measured" not in found["basis"] or "not measured" in found["basis"]:
        print(f"{case.name}: {found['basis']}", flush=True)
    _, seconds, cpu = run([*DOSIMETER, "run", *told, "--executor", case.executor], variables, limit)
    return Row(case.name, found["low"], found["expected"], found["high"], seconds, planning, cpu)


def main() -> None:
    """Compare the sweeps, and print the table and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="only sweeps with these words in their names")
    parser.add_argument("--seconds", type=float, default=2400, help="begin no further sweep after these (default 2400)")
    parser.add_argument("--list", action="store_true", help="list the sweeps' names")
    chosen = parser.parse_args()
    cases = [case for case in CASES if not chosen.only or any(words in case.name for words in chosen.only)]
    if chosen.list:
        print("\n".join(case.name for case in cases))
        return
    begun, rows, failed = time.monotonic(), [], []
    print(
        f"{'sweep':20} {'low':>7} {'expected':>8} {'high':>7} {'measured':>8} {'ratio':>6}  within  planning     cpu",
        flush=True,
    )
    with children.workplace() as folder:
        write_models(folder, {case.name.partition(" ")[0] for case in cases} & SHAPES.keys())
        write_rows(folder)
        for case in cases:
            left = chosen.seconds - (time.monotonic() - begun)
            if left <= 0:
                break
            try:
                row = compared(case, folder, max(300.0, left))
            except (CommandError, subprocess.TimeoutExpired) as error:
                print(f"{case.name:20} {error}", flush=True)
                failed.append(case.name)
                continue
            rows.append(row)
            said = "yes" if row.is_within else "no"
            print(
                f"{row.name:20} {row.low:7.1f} {row.expected:8.1f} {row.high:7.1f} {row.measured:8.1f}"
                f" {row.ratio:6.2f}  {said:6}  {row.planning:8.1f} {row.cpu:7.1f}",
                flush=True,
            )
    line = {
        "sweeps": len(rows),
        "within": sum(row.is_within for row in rows),
        "close": sum(row.is_close for row in rows),
    }
    line |= {"failed": failed, "not_begun": len(cases) - len(rows) - len(failed)}
    print(json.dumps(line | {"rows": [asdict(row) | {"ratio": round(row.ratio, 3)} for row in rows]}))


if __name__ == "__main__":
    main()
