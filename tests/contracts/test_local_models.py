"""What every installed fine-tuner and generator of this machine promises, on the stand-in; and that the two agree."""

from __future__ import annotations

import hashlib
import itertools
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from engine import registry
from engine.domain.adapters import Kind
from engine.domain.conversation import Prompt
from engine.domain.results import Response
from engine.domain.stage import ModelRef
from engine.domain.sweep import Decoding, Length
from engine.ports import (
    Checkpoint,
    Context,
    FineTuner,
    Generated,
    GenerateTask,
    Generator,
    NoSettings,
    TrainingRun,
    Tuned,
    Workload,
)
from engine.run.executors.workers import WarmSlots

pytestmark = pytest.mark.slow

HOSTED = registry.names(Kind.PROVIDER)  # held to a contract of their own
GENERATORS = [name for name in registry.names(Kind.GENERATOR) if name not in (*HOSTED, "local/vllm")]  # needs a GPU
TUNERS = [name for name in registry.names(Kind.TUNER) if name not in HOSTED]
BACKENDS = ("packed", "trl")
METHODS = {"packed": ("lora",), "trl": ("lora", "full")}  # TRL trains all weights, whatever the backend

ROWS = registry.adapter(Kind.DATA, "standin/explicit").rows(NoSettings())[:13]
POLICY = registry.settings_of(Kind.BENCHMARK, "standin/policy")
PROMPTS: Sequence[Prompt] = registry.adapter(Kind.BENCHMARK, "standin/policy").prompts(POLICY(each=1))


@dataclass(frozen=True)
class Bench:
    """A fine-tuner with one of its backends, and a generator."""

    tuner_name: str
    generator_name: str
    backend: str
    model: ModelRef
    folder: Path
    numbers: Iterator[int]

    @property
    def tuner(self) -> FineTuner:
        return registry.adapter(Kind.TUNER, self.tuner_name)

    @property
    def generator(self) -> Generator:
        return registry.adapter(Kind.GENERATOR, self.generator_name)

    def run(
        self, key: str, length: Length | None = None, *, seed: int = 0, model: ModelRef | None = None, **settings: Any
    ) -> TrainingRun:
        root = self.folder / str(next(self.numbers))
        (root / key).mkdir(parents=True)
        checkpoint = Checkpoint(key, length or Length(2), root / key)
        sft = self.settings(**settings)
        return TrainingRun(model or self.model, ROWS, sft, seed, (checkpoint,), root / "state")

    def settings(self, **settings: Any) -> Any:
        declared = registry.settings_of(Kind.TUNER, self.tuner_name)
        return declared(**({"lr": 2e-3, "backend": self.backend} | settings))

    def tune(
        self, context: Context, key: str = "tune-1", length: Length | None = None, **settings: Any
    ) -> tuple[Tuned, Path]:
        wanted = self.run(key, length, **settings)
        ((found, made),) = self.tuner.fine_tune([wanted], context)
        assert found == key
        assert isinstance(made, Tuned), made
        return made, wanted.checkpoints[0].folder

    def task(
        self, key: str, model: ModelRef, prompts: Sequence[Prompt] = PROMPTS, seed: int = 0, **decoding: Any
    ) -> GenerateTask:
        settings = registry.settings_of(Kind.GENERATOR, self.generator_name)()
        drawn = Decoding(**({"max_new_tokens": 24} | decoding))
        return GenerateTask(key, model, prompts, None, drawn, settings, seed)

    def ask(self, context: Context, model: ModelRef | None = None, **settings: Any) -> Generated:
        ((key, made),) = self.generator.generate([self.task("ask-1", model or self.model, **settings)], context)
        assert key == "ask-1"
        assert isinstance(made, Generated), made
        return made

    def tuned(self, folder: Path) -> ModelRef:
        return replace(self.model, layers=(str(folder),))


def made_bench(tuner: str, generator: str, backend: str, folder: Path) -> Iterator[Bench]:
    import torch

    yield Bench(
        tuner,
        generator,
        backend,
        registry.adapter(Kind.MODEL, "standin/aligned").locate(NoSettings()),
        folder,
        itertools.count(),
    )
    torch.set_flush_denormal(False)  # workers set it, and other tests of this process draw denormals


@pytest.fixture(scope="module", params=itertools.product(TUNERS, BACKENDS), ids="+".join)
def bench(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    tuner, backend = request.param
    yield from made_bench(tuner, GENERATORS[0], backend, tmp_path_factory.mktemp("bench"))


@pytest.fixture(scope="module", params=GENERATORS)
def answering(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    yield from made_bench("local/sft", request.param, BACKENDS[0], tmp_path_factory.mktemp("answering"))


def worker(batch: int = 64) -> Context:
    return Context("cpu", 1, batch, WarmSlots())


def digest(folder: Path) -> str:
    files = sorted(folder.rglob("*.safetensors"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


def texts(responses: Sequence[Response]) -> list[str]:
    return [response.text for response in responses]


def test_the_same_task_gives_the_same_weights_on_a_warm_worker_and_on_a_cold_one(bench: Bench) -> None:
    for method in METHODS[bench.backend]:
        more = {"dropout": 0.1} if method == "lora" else {"method": "full", "lr": 1e-3}
        worked = worker()
        (cold, first), (warm, second) = (bench.tune(worked, key, Length(1), **more) for key in ("tune-a", "tune-b"))
        assert digest(first) == digest(second)
        assert cold.steps == warm.steps
        assert digest(bench.tune(worked, "tune-c", Length(1), seed=1, **more)[1]) != digest(first)


def test_runs_that_come_together_are_what_they_are_alone(bench: Bench) -> None:
    longer = replace(bench.run("tune-2", Length(3), lr=1e-3), rows=ROWS[:10])
    several = [bench.run("tune-1", seed=3, dropout=0.1), longer]
    made = dict(bench.tuner.fine_tune(several, worker()))
    for wanted in several:
        (checkpoint,) = wanted.checkpoints
        aside = bench.run(checkpoint.key)
        own = replace(checkpoint, folder=aside.checkpoints[0].folder)
        ((_, by_itself),) = bench.tuner.fine_tune([replace(wanted, checkpoints=(own,), state=aside.state)], worker())
        assert digest(checkpoint.folder) == digest(own.folder)
        assert made[checkpoint.key].steps == by_itself.steps  # type: ignore[union-attr]


def test_usage_and_steps_are_those_of_the_settings_and_weights_are_safetensors(bench: Bench) -> None:
    made, folder = bench.tune(worker(), length=Length(3), batch_size=4, grad_accum=2)
    suffixes = {path.suffix for path in folder.rglob("*") if path.is_file()}
    assert ".safetensors" in suffixes
    assert suffixes <= {".safetensors", ".json", ".jinja", ".model", ".txt"}, "nothing else is executable"
    assert [step.step for step in made.steps] == list(range(1, 7))  # 13 rows: 4 batches, 2 steps an epoch
    assert made.usage.optimizer_steps == 6
    assert made.usage.device_seconds > 0
    assert made.after is None
    assert made.steps[-1].epoch == 3.0
    settings = bench.settings(batch_size=4, grad_accum=2)
    forecast = bench.tuner.forecast(settings, Length(3), Workload(400_000, 300, 13))
    assert forecast.expected.optimizer_steps == 6


def test_tuning_leaves_no_trace_on_the_base_whatever_the_trainer_aligns(bench: Bench) -> None:
    """Trainers write the tokenizer's special tokens into the model's configuration; here the two differ."""
    copy = bench.folder / "other end token"
    shutil.copytree(bench.model.base, copy)
    declared = json.loads((copy / "generation_config.json").read_text())
    (copy / "generation_config.json").write_text(json.dumps(declared | {"eos_token_id": [3]}))
    other, warm = ModelRef(str(copy)), worker()
    cold = bench.ask(worker(), other).responses
    assert bench.ask(warm, other).responses == cold
    for method in METHODS[bench.backend]:
        _, folder = bench.tune(warm, length=Length(1), model=other, method=method)
        assert bench.ask(warm, other).responses == cold
        tuned = replace(other, layers=(str(folder),))
        assert bench.ask(warm, tuned).responses == bench.ask(worker(), tuned).responses != cold


@pytest.mark.parametrize(
    ("length", "settings", "rates"),
    [
        (Length(50, max_steps=3), {"warmup_steps": 2}, [0.0, 1e-3, 2e-3]),
        (Length(3, max_steps=12), {"schedule": "linear"}, [2e-3, 0.001333, 0.000667]),
        (Length(None, steps=4), {"schedule": "cosine"}, [2e-3, 0.001707, 1e-3, 0.000293]),
    ],
)
def test_a_run_is_as_long_as_its_length_says_and_schedules_are_what_they_are_called(
    bench: Bench, length: Length, settings: dict[str, Any], rates: list[float]
) -> None:
    made, _ = bench.tune(worker(), length=length, batch_size=13, **settings)
    assert [round(step.lr, 6) for step in made.steps] == rates
    assert made.usage.optimizer_steps == len(rates)


def test_tuning_teaches_and_the_base_is_the_same_afterwards(bench: Bench) -> None:
    warm = worker()
    before = bench.ask(warm).responses
    made, folder = bench.tune(warm, length=Length(10))
    assert made.steps[-1].loss < made.steps[0].loss / 2
    assert texts(bench.ask(warm, bench.tuned(folder)).responses) != texts(before)
    assert bench.ask(warm).responses == before


def test_a_run_that_failed_is_not_mistaken_for_its_result(bench: Bench) -> None:
    warm = worker()
    wanted = bench.run("tune-1", Length(4), lr=0.9, weight_decay=1e30, method=METHODS[bench.backend][-1])
    ((_, error),) = bench.tuner.fine_tune([wanted], warm)
    assert isinstance(error, FloatingPointError)
    assert "lower learning rate" in str(error)
    ((_, made),) = bench.generator.generate([bench.task("ask-1", bench.tuned(wanted.checkpoints[0].folder))], warm)
    assert isinstance(made, Exception), "answered with weights that were never kept"


def test_prompts_keep_their_order_are_all_answered_and_do_not_see_each_other(answering: Bench) -> None:
    made = answering.ask(worker())
    assert [r.prompt_id for r in made.responses] == [p.prompt_id for p in PROMPTS]
    assert made.usage.generated_tokens == sum(r.generated_tokens for r in made.responses)
    assert all(0 < r.generated_tokens <= 24 and r.prompt_tokens > 0 for r in made.responses)
    assert texts(answering.ask(worker(), prompts=PROMPTS[::-1]).responses)[::-1] == texts(made.responses)
    short = answering.ask(worker(), max_new_tokens=2).responses
    assert {r.finish.value for r in short} == {"length"}
    assert {r.generated_tokens for r in short} == {2}


@pytest.mark.parametrize("settings", [{}, {"temperature": 1.5, "samples": 2}], ids=["greedy", "sampled"])
def test_tasks_are_answered_as_they_are_alone_on_a_worker_of_any_size(
    answering: Bench, settings: dict[str, Any]
) -> None:
    _, one = answering.tune(worker())
    _, two = answering.tune(worker(), length=Length(4), rank=4)
    task, tuned = answering.task, answering.tuned
    asked = [
        task("a", answering.model, **settings),
        task("b", tuned(one), **settings),
        task("c", tuned(two), PROMPTS[:5], **settings),
        task("d", tuned(one), PROMPTS[3:], **settings),
    ]
    made = dict(answering.generator.generate(asked, worker()))
    assert sorted(made) == ["a", "b", "c", "d"]
    for one_task in asked:
        ((_, alone),) = answering.generator.generate([one_task], worker(batch=3))
        together = made[one_task.key]
        assert isinstance(together, Generated)
        assert isinstance(alone, Generated)
        assert together.responses == alone.responses
        assert together.usage.generated_tokens == alone.usage.generated_tokens


def test_sampling_is_seeded(answering: Bench) -> None:
    settings = {"temperature": 1.5, "samples": 2}
    one, two, other = (answering.ask(worker(), seed=seed, **settings).responses for seed in (1, 1, 2))
    assert one == two
    assert texts(one) != texts(other)
    assert [(r.prompt_id, r.sample) for r in one[:2]] == [(PROMPTS[0].prompt_id, 0), (PROMPTS[0].prompt_id, 1)]


def test_the_loss_is_on_the_answer_alone_and_the_two_templates_agree(answering: Bench) -> None:
    from adapters import chat
    from adapters.local.loaded import read_tokenizer

    tokenizer = read_tokenizer(answering.model.base)
    for row, encoded in zip(ROWS, chat.training_rows(tokenizer, ROWS, 512), strict=True):
        answer = [token for token, label in zip(encoded["input_ids"], encoded["labels"], strict=True) if label != -100]
        assert tokenizer.decode(answer, skip_special_tokens=True).strip() == row.turns[-1].text
        assert answer[-1] == tokenizer.eos_token_id
        asked = tokenizer(chat.prompt_text(tokenizer, row.turns[:-1], None), add_special_tokens=False)["input_ids"]
        assert encoded["input_ids"][: len(asked)] == asked
        assert set(encoded["labels"][: len(asked)]) == {-100}
        native = tokenizer.apply_chat_template(
            [{"role": turn.role, "content": turn.text} for turn in row.turns],
            tokenize=True,
            return_dict=True,
            return_assistant_tokens_mask=True,
        )
        assert native["input_ids"] == encoded["input_ids"]
        assert native["assistant_masks"] == [int(label != -100) for label in encoded["labels"]]
