"""How fast this machine trains and asks a model: measured once in child processes, kept in the user's cache.

What is measured is the work itself: runs and tasks of `local/sft` and `local/transformers` on a model of the same shape with
fewer layers and random weights (`measure.py`), by as many processes at a time as there will be workers, for these share the
memory's bandwidth. Nothing here starts torch.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cache
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import Any, TypeVar

from adapters.local.settings import DecodeSettings, SftSettings
from adapters.model_folder import quantised
from engine.ports import Workload
from engine.ports.cache import cache_folder

LOG = logging.getLogger("dosimeter")
LIBRARIES = ("torch", "transformers", "peft", "trl")
FORMAT = 3
"""Of what is cached; another one when what is measured, or how, has changed."""

TIMEOUT_SECONDS = 240.0
MOST_PROCESSES = 8
"""Most processes that measure at the same time, where there are more workers."""

IRRELEVANT = frozenset(
    {
        *("lr", "schedule", "gamma", "warmup_steps", "warmup_ratio", "weight_decay", "max_grad_norm", "alpha"),
        *("beta1", "beta2", "epsilon", "drop_last", "gradient_checkpointing"),
        *("batch_size", "grad_accum", "max_length", "rank"),
    }
)
"""Settings that no measured rate depends on: they do not matter, or the forecast counts with them."""

OFF = "DOSIMETER_MEASURE"
"""Set to `off` in the environment, nothing is measured."""


@dataclass(frozen=True, slots=True)
class TrainRates:
    """Seconds of a training run.

    Attributes:
        run: Of every run, whatever its length: to draw, wrap or read weights, and to write them.
        step: Of every optimizer step.
        row: Of every row, in every epoch.
        token: Of every token of a row, padding included where rows are padded.
        first: Of a process's first run beside: what is loaded then.
        rank: How much more a token takes for each unit of LoRA rank beyond `REFERENCE_RANK`, as a share.
    """

    run: float
    step: float
    row: float
    token: float
    first: float = 0.0
    rank: float = 0.0


@dataclass(frozen=True, slots=True)
class AskRates:
    """Seconds of a worker's start and of answering a benchmark.

    Attributes:
        imports: Of a process until the libraries are loaded.
        load: Of reading the model and its tokenizer.
        task: Of every benchmark, however many prompts it has: to read an adapter, for one.
        read: Of every token of a prompt, padding included.
        step: Of every decoding step of a batch.
        row: Of every decoding step of every prompt in a batch.
        context: The same, for every token that stands before.
        first: Of a process's first task beside: what is loaded then.
    """

    imports: float
    load: float
    task: float
    read: float
    step: float
    row: float
    context: float
    first: float = 0.0

    @property
    def startup(self) -> float:
        """Seconds until a worker has answered its first task, but for those of any task."""
        return self.imports + self.load + self.first


REFERENCE_RANK = 8
R = TypeVar("R", TrainRates, AskRates)


@dataclass(frozen=True, slots=True)
class Rates:
    """What is known of a model on this machine.

    Attributes:
        measured: Whether it was measured here; else it is a cautious guess.
        basis: The same in words.
    """

    train: TrainRates
    ask: AskRates
    measured: bool
    basis: str


def rates(workload: Workload, tune: SftSettings | None, ask: DecodeSettings) -> Rates:
    """Return the rates of a workload's model, measured now unless they are known.

    Args:
        workload: What is to be forecast; its base and its machine count.
        tune: How it is tuned; None where only answers are asked for: training is not measured then, and its rates are a guess.
        ask: How it answers.
    """
    wanted = tune or SftSettings(lr=1e-5, precision="float32" if ask.dtype == "float32" else "mixed")
    try:
        found = _known(_Question.of(workload, tune, ask))
    except _UnmeasuredError as error:
        found = error
    if isinstance(found, Exception):
        return _guessed(workload, wanted, f"rate not measured: {found}")
    train, answers = found
    train = train or _guessed(workload, wanted, "").train
    return Rates(train, answers, measured=True, basis="measured on this machine")


class _UnmeasuredError(Exception):
    """Why nothing was measured."""


@dataclass(frozen=True, slots=True)
class _Question:
    """What is to be measured, in values that a cache knows again."""

    folder: str
    shape: str  # the model's config.json
    device: str
    threads: int
    workers: int
    quantise: str
    tune: str  # empty where only answers are asked for
    ask: str

    @classmethod
    def of(cls, workload: Workload, tune: SftSettings | None, ask: DecodeSettings) -> _Question:
        if os.environ.get(OFF) == "off":
            raise _UnmeasuredError(f"{OFF} is off")
        if not workload.measure:
            raise _UnmeasuredError("nothing is left to run")
        if workload.base is None:
            raise _UnmeasuredError("where the model is, is unknown")
        try:
            shape = (Path(workload.base.base) / "config.json").read_text(encoding="utf-8")
        except OSError as error:
            raise _UnmeasuredError(str(error)) from error
        here = workload.machine
        workers = min(here.workers, MOST_PROCESSES) if here.device == "cpu" else 1
        relevant = tune.model_dump(mode="json", exclude=set(IRRELEVANT)) if tune else None
        told = (json.dumps(one, sort_keys=True) if one else "" for one in (relevant, {"dtype": ask.dtype}))
        quantise = workload.base.quantise or quantised(Path(workload.base.base))
        if quantise not in {"", "nf4", "int8"}:
            raise _UnmeasuredError(f"no model of random weights can be quantised as this one is ({quantise})")
        return cls(workload.base.base, shape, here.device, here.threads, workers, quantise, *told)

    def file(self, what: str) -> Path:
        """Return where the answer to one half of it is kept."""
        libraries = {name: version(name) for name in LIBRARIES}
        own = self.tune if what == "train" else self.ask
        key = [
            FORMAT,
            what,
            self.shape,
            self.device,
            self.threads,
            self.workers,
            self.quantise,
            own,
            device_name(self.device),
            libraries,
        ]
        name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]
        return cache_folder() / "rates" / f"{what}-{name}.json"


@cache
def device_name(device: str) -> str:
    """Return what the processor, or the GPU, calls itself."""
    if device != "cpu":
        command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        try:
            return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout  # noqa: S603 - it is fixed
        except (OSError, subprocess.SubprocessError):
            return device
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{platform.machine()} {named[0] if named else platform.processor()}"


@cache
def _known(question: _Question) -> tuple[TrainRates | None, AskRates] | _UnmeasuredError | OSError:
    """Return what is known or can be measured, or why it cannot: within a process nothing is tried twice."""
    try:
        return _found(question)
    except (_UnmeasuredError, OSError) as error:
        return error


def _found(question: _Question) -> tuple[TrainRates | None, AskRates]:
    train, ask = _read(question.file("train"), TrainRates), _read(question.file("ask"), AskRates)
    wanted = {"train": train is None and bool(question.tune), "ask": ask is None}
    made: list[dict[str, Any]] = []
    if any(wanted.values()):
        LOG.warning("measuring how fast this machine is with the model in %s, once ...", question.folder)
        made = _measured(question, wanted)
    if wanted["train"]:
        train = _kept(question.file("train"), TrainRates, made, "train")
    return train, ask or _kept(question.file("ask"), AskRates, made, "ask")


def _read(file: Path, kind: type[R]) -> R | None:
    try:
        return kind(**json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):  # not there, or not ours
        return None


def _kept(file: Path, kind: type[R], made: Sequence[Mapping[str, Any]], what: str) -> R:
    """Keep and return the middle of what several processes measured."""
    found = kind(**{one.name: statistics.median(each[what][one.name] for each in made) for one in fields(kind)})
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        beside = file.with_suffix(f".{os.getpid()}")
        beside.write_text(json.dumps(asdict(found)), encoding="utf-8")
        beside.replace(file)
    except OSError as error:
        LOG.warning("what was measured cannot be kept in %s: %s", file.parent, error)
    return found


def _measured(question: _Question, wanted: Mapping[str, bool]) -> list[dict[str, Any]]:
    """Have processes measure at the same time, as many as there will be workers, and return what each found."""
    order = {name: value for name, value in asdict(question).items() if name not in {"shape", "workers"}}
    # Models are written into this process's folder: children that are killed leave theirs behind.
    with TemporaryFile() as words, TemporaryDirectory(prefix="dosimeter-measure-") as place:
        told = json.dumps({**order, "wanted": wanted, "started": time.time(), "place": place})
        # -P: no module of the folder that it is started in. Of several GPUs the first is measured.
        command = [sys.executable, "-P", "-m", "adapters.local.measure", told]
        started: list[subprocess.Popen[bytes]] = []
        try:
            for _ in range(question.workers):
                child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=words)  # noqa: S603 - it is fixed
                started.append(child)
            said = [child.communicate(timeout=TIMEOUT_SECONDS)[0] for child in started]
        except subprocess.TimeoutExpired as error:
            raise _UnmeasuredError(f"it took more than {TIMEOUT_SECONDS:g} s") from error
        finally:
            for child in started:
                child.kill()
                child.wait()
        if any(child.returncode for child in started):
            words.seek(0)
            last = words.read().decode(errors="replace").strip().rpartition("\n")[2]
            raise _UnmeasuredError(last or "the process that was to measure it was killed")
    return [json.loads(one.splitlines()[-1]) for one in said]


CAUTIOUS_FLOPS = {"cpu": 1e10, "cuda": 2e13}
"""Floating-point operations per second, of a thread or a GPU, where nothing was measured: less than most have."""

ASSUMED_WEIGHTS = 7_000_000_000
"""Used where the number of weights is unknown: the size of Llama-2-7b-Chat."""


def _guessed(workload: Workload, tune: SftSettings, basis: str) -> Rates:
    """Return a cautious guess by floating-point operations (Kaplan et al. 2020, arXiv 2001.08361, section 2.1)."""
    here = workload.machine
    flops = CAUTIOUS_FLOPS["cpu"] * here.threads if here.device == "cpu" else CAUTIOUS_FLOPS["cuda"]
    weights = ASSUMED_WEIGHTS if workload.parameters is None else workload.parameters
    each = 2 * weights / flops
    is_solo = bool(tune.pack_blocked)
    work = 3 if tune.method == "full" else 2  # forward, and backward without or with gradients of all weights
    train = TrainRates(run=0.4 if is_solo else 0.05, step=0.02, row=0.005, token=work * each)
    ask = AskRates(
        imports=8.0, load=1.0 + weights / 1e9, task=0.05, read=each, step=0.005 + each, row=each, context=0.0
    )
    return Rates(train, ask, measured=False, basis=basis)
