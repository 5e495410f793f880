"""Measures what `rates.py` asks for, in a process of its own: `python -m adapters.local.measure ORDER`.

It trains and asks models of the same shape as the one in question, with random weights and one layer, and then with two or
more, through the very classes that a run uses. What is between the two is a layer's; the rest is the head's and the code's. Seconds
are laid on lines by least squares, with no share below zero.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from operator import itemgetter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeAlias, TypeVar

import numpy as np
import torch
from scipy.optimize import nnls
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast, set_seed

from adapters.local import answers  # noqa: F401 - a worker imports it, and so do seconds of starting
from adapters.local.generate import TransformersGenerator
from adapters.local.loaded import loaded, read_tokenizer
from adapters.local.packs import train as packs  # noqa: F401 - the same
from adapters.local.rates import REFERENCE_RANK, AskRates, TrainRates
from adapters.local.settings import DecodeSettings, SftSettings
from adapters.local.tune import LocalFineTuner
from engine.domain.conversation import ChatRow, Prompt
from engine.domain.stage import ModelRef
from engine.domain.sweep import Decoding, Length
from engine.ports import Checkpoint, Context, GenerateTask, TrainingRun, Tuned

T = TypeVar("T")
S = TypeVar("S")
M = TypeVar("M", tuple[float], tuple[float, int])
Point: TypeAlias = tuple[int, int, int]
"""What is measured: its meaning is that of `Bench.train` and `Bench.ask`."""

SMALL_WEIGHTS = 3_000_000
"""A model of up to so many weights is measured whole."""

LAYERS_WEIGHTS = 18_000_000
"""Weights that the layers of the larger of two models may have, unless two layers have more."""

HEAD_WEIGHTS = 20_000_000
"""A larger head (vocabulary times width) is cut to this, and what is lost counted by its weights."""

REPEATS = ((0.1, 3), (0.5, 2))
"""A point that takes less than so many seconds is measured so many times, and the quickest counts: what disturbs only adds."""

READING = 1.25
"""Seconds of starting a process that loads the libraries, at most, for each one that it computes: the rest is reading files."""

WORDS = 64
TEMPLATE = "{% for m in messages %}{{ m.content }}{% if m.role == 'assistant' %}<end>{% endif %} {% endfor %}"

HUGE_LAYER = 50_000_000
"""Where a layer has more weights, a CPU takes seconds for what is below, and half of the rows and an eighth of the tokens have to do."""

TRAINED = ((1, 64, 2), (1, 64, 6), (4, 64, 2), (4, 192, 2))
"""(rows of a batch, tokens of a row, steps) of the training runs. Shorter rows would not do: a pass of few tokens takes as long as
reading the weights does, and tokens would seem to cost nothing."""

ASKED = ((1, 16, 2), (1, 16, 10), (6, 16, 2), (6, 16, 10), (6, 80, 2), (6, 80, 10))
"""(prompts, tokens of each, tokens to answer) of the tasks."""


SLICE_BYTES = 2**26
"""Of the real weights, so many bytes are read, to see how fast they come."""


class _Warm:
    """Keeps what is loaded. Implements `engine.ports.Warm`."""

    def __init__(self) -> None:
        self._held: dict[tuple[str, str], Any] = {}

    def get(self, slot: str, key: str, make: Callable[[], T]) -> T:
        """Return what a slot holds, or make it."""
        if (slot, key) not in self._held:
            self._held[slot, key] = make()
        held: T = self._held[slot, key]
        return held

    def drop(self, slot: str) -> None:
        """Empty a slot."""
        self._held = {place: held for place, held in self._held.items() if place[0] != slot}


@dataclass(frozen=True, slots=True)
class Cut:
    """A model's configuration, cut.

    Attributes:
        config: A transformers configuration of a text model.
        layers: Its layers.
        vocabulary: Its vocabulary.
    """

    config: Any
    layers: int
    vocabulary: int

    def weights(self) -> tuple[int, int]:
        """Return the weights of its layers and of its head, without making any."""
        model = self.empty()
        head = model.get_output_embeddings().weight.numel()
        ends = head if model.config.tie_word_embeddings else head + model.get_input_embeddings().weight.numel()
        return sum(one.numel() for one in model.parameters()) - ends, head

    def empty(self) -> Any:
        """Return the model without any weights."""
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(self._cut())

    def _cut(self) -> Any:
        config = type(self.config).from_dict(self.config.to_dict())
        config.num_hidden_layers, config.vocab_size = self.layers, self.vocabulary
        if getattr(config, "layer_types", None):
            config.layer_types = config.layer_types[: self.layers]
        if hasattr(config, "quantization_config"):
            del config.quantization_config
        config.pad_token_id, config.bos_token_id, config.eos_token_id = 0, None, 1
        return config

    def write(self, folder: Path, dtype: str) -> ModelRef:
        """Write a model of this shape with random weights, and a tokenizer that has a token for each word."""
        set_seed(0)
        stored = torch.bfloat16 if dtype == "bfloat16" else torch.float32
        model = AutoModelForCausalLM.from_config(self._cut(), dtype=stored)
        model.generation_config.eos_token_id, model.generation_config.pad_token_id = 1, 0
        model.save_pretrained(folder)
        named = {"<pad>": 0, "<end>": 1, **{f"w{place}": place for place in range(2, WORDS)}}
        words = Tokenizer(models.WordLevel(named, unk_token="w2"))  # noqa: S106 - it is no password
        words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        own = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<end>")  # noqa: S106 - nor these
        own.chat_template = TEMPLATE
        own.save_pretrained(folder)
        return ModelRef(str(folder))


def cuts(config: Any) -> list[Cut]:
    """Return the shapes to measure: the whole model where it is small, else one of one layer and one of more."""
    layers, vocabulary = config.num_hidden_layers, config.vocab_size
    of_layers, head = Cut(config, layers, vocabulary).weights()
    if of_layers + head <= SMALL_WEIGHTS:
        return [Cut(config, layers, vocabulary)]
    kept = max(WORDS, min(vocabulary, math.floor(HEAD_WEIGHTS * vocabulary / head)))
    more = min(layers, max(2, math.floor(LAYERS_WEIGHTS * layers / of_layers)))  # two tell a layer from the head
    return [Cut(config, number, kept) for number in dict.fromkeys((1, more))]


def text(tokens: int) -> str:
    """Return words of so many tokens."""
    return " ".join(f"w{2 + place % (WORDS - 2)}" for place in range(tokens))


class Clock:
    """Seconds of work: on a CPU that others use as well, no more than this process computed.

    Args:
        device: A torch device.
    """

    def __init__(self, device: str) -> None:
        """Begin now."""
        self._is_cpu = device == "cpu"
        self._wall, self._own = time.perf_counter(), time.process_time()

    def seconds(self) -> float:
        """Return the seconds since it began."""
        wall, own = time.perf_counter() - self._wall, time.process_time() - self._own
        return min(wall, own) if self._is_cpu else wall


class Bench:
    """Runs and tasks on one model.

    Args:
        model: The model.
        folder: An empty folder.
        context: The worker.
    """

    def __init__(self, model: ModelRef, folder: Path, context: Context) -> None:
        """Begin."""
        self._model, self._folder, self._context = model, folder, context
        self._made = 0

    def load(self, dtype: str) -> float:
        """Return the seconds of reading the model and its tokenizer, once it has been read before."""
        loaded(self._model, dtype, self._context)
        self._context.warm.drop("base")
        clock = Clock(self._context.device)
        loaded(self._model, dtype, self._context)
        return clock.seconds()

    def train(self, settings: SftSettings, point: Point) -> tuple[float]:
        """Return the seconds of a training run.

        Args:
            settings: How.
            point: Rows of a batch, tokens of a row, steps.
        """
        rows, tokens, steps = point
        exchange = text(tokens // 2), text(tokens - tokens // 2 - 1)
        sample = [ChatRow.exchange(str(row), *exchange) for row in range(rows * steps)]
        self._made += 1
        folder = self._folder / str(self._made)
        folder.mkdir()
        own = settings.model_copy(
            update={"batch_size": rows, "grad_accum": 1, "max_length": 4096, "rank": REFERENCE_RANK}
        )
        run = TrainingRun(
            self._model, sample, own, 0, (Checkpoint("c", Length(1), folder),), self._folder / f"{self._made} state"
        )
        clock = Clock(self._context.device)
        for _, made in LocalFineTuner().fine_tune([run], self._context):
            if not isinstance(made, Tuned):
                raise made
        return (clock.seconds(),)

    def ask(self, settings: DecodeSettings, point: Point) -> tuple[float, int]:
        """Return the seconds of a task, and its decoding steps.

        Args:
            settings: How.
            point: Prompts, tokens of each, tokens to answer.
        """
        prompts, tokens, answer = point
        asked = [Prompt.single(str(place), "", text(tokens)) for place in range(prompts)]
        decoding = Decoding(max_new_tokens=answer, temperature=0)
        clock = Clock(self._context.device)
        task = GenerateTask("g", self._model, asked, None, decoding, settings, 0)
        ((_, made),) = TransformersGenerator().generate([task], self._context)
        if isinstance(made, Exception):
            raise made
        return clock.seconds(), max(one.generated_tokens for one in made.responses)


def laid(features: Sequence[Sequence[float]], seconds: Sequence[float]) -> list[float]:
    """Return what each feature takes, >= 0, by least squares of the relative errors."""
    scale = 1 / np.asarray(seconds)
    found, _ = nnls(np.asarray(features) * scale[:, None], np.ones(len(seconds)))
    return [float(one) for one in found]


def quickest(measure: Callable[[S, Point], M], settings: S, point: Point) -> M:
    """Return the quickest of several measurements of a point, which has its seconds first."""
    found = [measure(settings, point)]
    repeats = next((times for seconds, times in REPEATS if found[0][0] < seconds), 1)
    found += [measure(settings, point) for _ in range(repeats - 1)]
    return min(found, key=itemgetter(0))


def smaller(points: Sequence[Point]) -> list[Point]:
    """Return less of the same."""
    return [(-(-rows // 2), max(4, tokens // 8), -(-answer // 2)) for rows, tokens, answer in points]


def read_seconds(folder: Path) -> float:
    """Return the seconds that reading the bytes of a model's weights takes, told from some of them."""
    sizes = {path: path.stat().st_size for path in folder.glob("*.safetensors")}
    if not sizes:
        return 0.0
    begun = time.perf_counter()
    with max(sizes, key=lambda path: sizes[path]).open("rb", buffering=0) as file:
        read = len(file.read(SLICE_BYTES))
    return (time.perf_counter() - begun) * sum(sizes.values()) / max(1, read)


def trained(bench: Bench, settings: SftSettings, points: Sequence[Point]) -> tuple[list[float], float]:
    """Return the seconds of a run, a step, a row and a token; and what the first run took beside."""
    first = bench.train(settings, points[0])[0]
    seconds = [quickest(bench.train, settings, point)[0] for point in points]
    found = laid([(1, steps, steps * rows, steps * rows * tokens) for rows, tokens, steps in points], seconds)
    return found, max(0.0, first - seconds[0])


def asked(bench: Bench, settings: DecodeSettings, points: Sequence[Point]) -> tuple[list[float], float]:
    """Return the seconds of a task, of a token read, and of a step: by itself, a row, and a token that stands before.

    And, second, what the first task took beside.
    """
    first = bench.ask(settings, points[0])[0]
    seconds, features = [], []
    for rows, tokens, answer in points:
        taken, steps = quickest(bench.ask, settings, (rows, tokens, answer))
        seconds.append(taken)
        features.append((1, rows * tokens, steps, steps * rows, steps * rows * (tokens + steps / 2)))
    return laid(features, seconds), max(0.0, first - seconds[0])


def whole(found: Sequence[Sequence[float]], shapes: Sequence[Cut], lost: float, shares: Sequence[float]) -> list[float]:
    """Return what the whole model takes, from what its cuts take.

    Args:
        found: What each cut takes.
        shapes: The cuts, the one with fewer layers first.
        lost: Layers that weigh as much as what was cut off the head.
        shares: For each rate, what a weight of the head takes of that, next to a weight of a layer.
    """
    layers = shapes[0].config.num_hidden_layers
    if len(shapes) == 1:
        each = [one / shapes[0].layers for one in found[0]]  # it was measured whole
    else:
        between = shapes[1].layers - shapes[0].layers
        each = [max(0.0, more - less) / between for less, more in zip(*found, strict=True)]
    rest = [less - shapes[0].layers * layer for less, layer in zip(found[0], each, strict=True)]
    return [
        max(0.0, aside) + layer * (layers + lost * share)
        for aside, layer, share in zip(rest, each, shares, strict=True)
    ]


def rank_share(shape: Cut) -> float:
    """Return how much more a token takes for each unit of rank: 6 operations a weight of LoRA, beside 4 a frozen one."""
    linear = [one for one in shape.empty().modules() if isinstance(one, torch.nn.Linear)]
    small = sum(one.in_features + one.out_features for one in linear)
    return 1.5 * small / max(1, sum(one.in_features * one.out_features for one in linear))


def measured(order: dict[str, Any], imports: float) -> dict[str, dict[str, float]]:
    """Return the rates that an order asks for.

    Args:
        order: What `rates.py` sends.
        imports: Seconds that this process took to load its libraries.
    """
    config = AutoConfig.from_pretrained(order["folder"], trust_remote_code=False).get_text_config()
    tune = SftSettings.model_validate_json(json.dumps({**json.loads(order["tune"] or "{}"), "lr": 1e-5}))
    ask = DecodeSettings.model_validate_json(order["ask"])
    shapes = cuts(config)
    of_layers, head = Cut(config, config.num_hidden_layers, config.vocab_size).weights()
    lost = head * (1 - shapes[0].vocabulary / config.vocab_size) / (of_layers / config.num_hidden_layers)
    device = "cpu" if order["device"] == "cpu" else f"{order['device']}:0"
    is_slow = device == "cpu" and of_layers / config.num_hidden_layers > HUGE_LAYER
    to_train, to_ask = (smaller(points) if is_slow else points for points in (TRAINED, ASKED))
    loads, asks, trains, firsts = [], [], [], {"ask": 0.0, "train": 0.0}
    for shape in shapes:
        with TemporaryDirectory(dir=order["place"]) as place:
            model = replace(shape.write(Path(place) / "model", ask.dtype), quantise=order["quantise"])
            bench = Bench(model, Path(place), Context(device, order["threads"], ASKED[-1][0], _Warm()))
            loads.append([bench.load(ask.dtype)])
            if order["wanted"]["ask"]:
                found, first = asked(bench, ask, to_ask)
                asks.append(found)
                firsts["ask"] = max(first, firsts["ask"])
            if order["wanted"]["train"]:
                found, first = trained(bench, tune, to_train)
                trains.append(found)
                firsts["train"] = max(first, firsts["train"])
    made: dict[str, dict[str, float]] = {}
    if asks:
        clock = Clock(device)
        read_tokenizer(order["folder"])
        load = clock.seconds() + whole(loads, shapes, lost, [1.0])[0] + read_seconds(Path(order["folder"]))
        task, read, step, row, context = whole(asks, shapes, lost, [0, 0, 1, 1, 0])
        made["ask"] = asdict(AskRates(imports, load, task, read, step, row, context, firsts["ask"]))
    if trains:
        rank = rank_share(shapes[0]) if tune.method == "lora" else 0.0
        run, step, row, token = whole(trains, shapes, lost, [1, 1, 0, 0.5])
        made["train"] = asdict(TrainRates(run, step, row, token, firsts["train"], rank))
    return made


def main() -> None:
    """Measure, and print the rates as one line of JSON."""
    order = json.loads(sys.argv[1])
    if order["device"] != "cpu":
        torch.zeros(1, device=order["device"])
    imports = min(time.time() - order["started"], READING * time.process_time())
    print(json.dumps(measured(order, imports)))  # noqa: T201 - for the parent


if __name__ == "__main__":
    main()
