"""Answers are those of transformers and PEFT, whoever else is asked beside; what goes wrong stays where it is."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from engine import registry
from engine.domain.adapters import Kind
from engine.domain.conversation import Prompt, Turn
from engine.domain.results import Response
from engine.domain.stage import ModelRef
from engine.domain.sweep import Decoding
from engine.ports import Context, Fit, Generated, GenerateTask, NoSettings, StoppedError, Workload
from engine.run.executors.workers import WarmSlots

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::FutureWarning")]

POLICY = registry.settings_of(Kind.BENCHMARK, "standin/policy")
PROMPTS: Sequence[Prompt] = registry.adapter(Kind.BENCHMARK, "standin/policy").prompts(POLICY())[::23]
SYSTEM = "you answer in one sentence and you are kind to all who ask you for help with a thing"
KINDS: dict[str, dict[str, Any]] = {"plain": {}, "of rank 1": {"r": 1}, "rank-stabilised": {"use_rslora": True}}


class Bench:
    """The stand-in with adapters that are far from doing nothing, on disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.base: ModelRef = registry.adapter(Kind.MODEL, "standin/aligned").locate(NoSettings())
        self.generator = registry.adapter(Kind.GENERATOR, "local/transformers")
        self.adapters = {kind: self.moved(kind, seed, more) for seed, (kind, more) in enumerate(KINDS.items())}

    def moved(self, name: str, seed: int, more: dict[str, Any]) -> ModelRef:
        import torch
        from peft import get_peft_model

        from adapters.local import lora
        from adapters.local.settings import SftSettings
        from adapters.whole_model import read_model

        torch.manual_seed(seed)
        config = dataclasses.replace(lora.configured(SftSettings(lr=1e-3)), **more)
        model = get_peft_model(read_model(self.base.base, "float32", "cpu"), config)
        for path, weight in model.named_parameters():
            if "lora_B" in path:
                torch.nn.init.normal_(weight, std=0.08)
        model.save_pretrained(self.folder / name)
        return ModelRef(self.base.base, (str(self.folder / name),))

    def context(self, batch: int = 128) -> Context:
        return Context("cpu", 1, batch, WarmSlots())

    def task(
        self, key: str, model: ModelRef | None = None, prompts: Sequence[Prompt] = PROMPTS, system: str | None = None
    ) -> GenerateTask:
        settings = registry.settings_of(Kind.GENERATOR, "local/transformers")()
        return GenerateTask(key, model or self.base, prompts, system, Decoding(16), settings, 0)

    def made(self, tasks: Sequence[GenerateTask], context: Context | None = None) -> dict[str, Generated | Exception]:
        return dict(self.generator.generate(tasks, context or self.context()))

    def answers(self, tasks: Sequence[GenerateTask], context: Context | None = None) -> dict[str, Sequence[Response]]:
        found = {}
        for key, made in self.made(tasks, context).items():
            assert isinstance(made, Generated), made
            found[key] = made.responses
        return found

    def by_peft(self, task: GenerateTask) -> list[str]:
        """What PEFT and transformers answer, one prompt at a time."""
        from peft import PeftModel

        from adapters import chat
        from adapters.local.loaded import read_tokenizer
        from adapters.whole_model import read_model

        model, tokenizer = read_model(task.model.base, "float32", "cpu"), read_tokenizer(self.base.base)
        if task.model.tuned:
            model = PeftModel.from_pretrained(model, task.model.tuned).eval()
        texts = []
        for prompt in task.prompts:
            asked = chat.prompt_text(tokenizer, prompt.turns, task.system)
            ids = tokenizer(asked, add_special_tokens=False, return_tensors="pt")["input_ids"]
            made = model.generate(input_ids=ids, attention_mask=ids * 0 + 1, max_new_tokens=16, do_sample=False)
            texts.append(tokenizer.decode(made[0, ids.shape[1] :], skip_special_tokens=True).strip())
        return texts


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    import torch

    yield Bench(tmp_path_factory.mktemp("bench"))
    torch.set_flush_denormal(False)  # workers set it, and other tests of this process draw denormals


def test_answers_are_those_of_peft_for_every_kind_of_adapter(bench: Bench) -> None:
    asked = {"base": bench.base} | bench.adapters
    tasks = [
        bench.task(f"{name} {system}", model, PROMPTS[number:], system)
        for number, (name, model) in enumerate(asked.items())
        for system in (None, SYSTEM)
    ]
    found = bench.answers(tasks)
    assert {key: [one.text for one in own] for key, own in found.items()} == {
        task.key: bench.by_peft(task) for task in tasks
    }
    assert len({one.text for own in found.values() for one in own}) > len(PROMPTS), "they differ"
    assert {one.finish.value for own in found.values() for one in own} == {"stop", "length"}


def test_greedy_is_greedy_whatever_the_model_s_own_generation_config_says(bench: Bench) -> None:
    """With `model_defaults`, answers are what transformers gives for the model as it is; for tuned models too."""
    import shutil

    folder = bench.folder / "penal"
    shutil.copytree(bench.base.base, folder)
    own = {"repetition_penalty": 1.5, "min_new_tokens": 6, "do_sample": True, "top_k": 1}
    path = folder / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | own))
    models = [bench.base, bench.adapters["plain"]]
    plain, penal = (
        [bench.task(f"{at}", dataclasses.replace(model, base=str(base))) for at, model in enumerate(models)]
        for base in (bench.base.base, folder)
    )
    assert bench.answers(penal) == bench.answers(plain)
    asked = [dataclasses.replace(one, settings=type(one.settings)(model_defaults=True)) for one in penal]
    found = bench.answers(asked)
    assert found != bench.answers(plain)
    assert {key: [one.text for one in made] for key, made in found.items()} == {
        one.key: bench.by_peft(one) for one in asked
    }


def test_the_base_comes_out_as_it_was_whatever_was_asked(bench: Bench) -> None:
    import torch

    from adapters.local.loaded import loaded

    context = bench.context()
    held = loaded(bench.base, "float32", context)
    before = {name: weight.clone() for name, weight in held.base.state_dict().items()}
    alone = bench.answers([bench.task("base")])
    bench.answers([bench.task(name, model) for name, model in bench.adapters.items()], context)
    assert bench.answers([bench.task("base")], context) == alone
    after = held.base.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in after)


def test_fully_tuned_weights_are_answered_by_a_model_of_their_own(bench: Bench) -> None:
    import torch

    from adapters.whole_model import read_model

    model = read_model(bench.base.base, "float32", "cpu")
    with torch.no_grad():
        model.model.norm.weight.mul_(torch.linspace(0.5, 1.5, 96))
    model.save_pretrained(bench.folder / "whole")
    whole = bench.task("whole", ModelRef(bench.base.base, (str(bench.folder / "whole"),)))
    found = bench.answers([bench.task("before"), whole, bench.task("after")])
    assert found["before"] == found["after"] != found["whole"]


def test_answers_come_from_what_lies_on_disk_at_the_time(bench: Bench) -> None:
    from safetensors.torch import load_file, save_file

    context, model = bench.context(), bench.adapters["plain"]
    before = bench.answers([bench.task("a", model)], context)
    path = Path(str(model.tuned)) / "adapter_model.safetensors"
    kept = path.read_bytes()
    save_file({name: weight * 0 for name, weight in load_file(path).items()}, path, {"format": "pt"})
    assert bench.answers([bench.task("a", model)], context) == bench.answers([bench.task("a")], context)
    path.write_bytes(kept)
    assert bench.answers([bench.task("a", model)], context) == before


def test_an_adapter_that_is_more_than_a_and_b_is_left_to_peft(bench: Bench) -> None:
    from adapters.local import lora

    folder = Path(str(bench.adapters["plain"].tuned))
    path = folder / "adapter_config.json"
    kept = path.read_text()
    more: tuple[dict[str, object], ...] = (
        {"alora_invocation_tokens": [3]},
        {"init_lora_weights": "pissa"},  # which changes the base as well
        {"layer_replication": [[0, 2], [1, 3]]},
        {"use_dora": True},
        {"of_another_version": 1},
    )
    for fields in more:
        path.write_text(json.dumps(json.loads(kept) | fields))
        assert lora.read(folder) is None, fields
    path.write_text(json.dumps(json.loads(kept) | {"init_lora_weights": False, "of_another_version": None}))
    assert lora.read(folder) is not None
    path.write_text(kept)


@pytest.mark.filterwarnings("ignore::UserWarning")  # PEFT's advice on adapted embeddings
def test_adapted_embeddings_that_are_the_output_layer_too_are_never_merged(bench: Bench) -> None:
    below, above = bench.moved("embeddings", 7, {"target_modules": ["embed_tokens"]}), bench.adapters["plain"]
    both = ModelRef(bench.base.base, (*below.layers, *above.layers))
    (error,) = bench.made([bench.task("both", both)]).values()
    assert isinstance(error, ValueError)
    assert "embeddings adapts embeddings that are the output layer as well" in str(error)


def test_a_task_that_fails_takes_no_other_with_it(bench: Bench) -> None:
    (bench.folder / "torn").mkdir()
    torn = ModelRef(bench.base.base, (str(bench.folder / "torn"),))
    odd = [dataclasses.replace(PROMPTS[0], turns=(Turn("user", 3.5),))]  # type: ignore[arg-type] # what goes wrong
    good = bench.task("good", bench.adapters["plain"])
    made = bench.made([bench.task("torn", torn), good, bench.task("odd", prompts=odd), bench.task("base")])
    assert {key for key, one in made.items() if isinstance(one, Exception)} == {"torn", "odd"}
    assert made["good"].responses == bench.answers([good])["good"]  # type: ignore[union-attr]


def test_shares_of_the_time_add_up_to_it(bench: Bench) -> None:
    context = bench.context()
    bench.made([bench.task("warm")], context)
    tasks = [bench.task("long", bench.adapters["plain"]), bench.task("short", bench.adapters["of rank 1"], PROMPTS[:1])]
    began = time.perf_counter()
    made = bench.made(tasks, context)
    wall = time.perf_counter() - began
    shares = [one.usage.device_seconds for one in made.values() if isinstance(one, Generated)]
    assert 0.7 * wall < sum(shares) <= wall


def test_what_memory_does_not_hold_at_once_is_done_in_halves() -> None:
    import torch

    from adapters.local.batches import in_halves

    seen: list[int] = []

    def work(items: Sequence[int]) -> list[int]:
        seen.append(len(items))
        if len(items) > 2:
            raise torch.OutOfMemoryError("not here")
        return [2 * item for item in items]

    assert in_halves(work, [1, 2, 3, 4, 5]) == [2, 4, 6, 8, 10]
    assert seen == [5, 2, 3, 1, 2]
    with pytest.raises(MemoryError):
        in_halves(lambda _: (_ for _ in ()).throw(MemoryError()), [1, 2])
    with pytest.raises(RuntimeError, match="a bug"):
        in_halves(lambda _: (_ for _ in ()).throw(RuntimeError("a bug")), [1, 2])


def written_pages() -> list[int]:
    """Return the kB of its own that this process has in each mapping of the stand-in's weights."""
    lines = Path("/proc/self/smaps").read_text().splitlines()
    places = [number for number, line in enumerate(lines) if line.endswith("aligned/model.safetensors")]
    dirty = [next(line for line in lines[place:] if line.startswith("Private_Dirty")) for place in places]
    return [int(line.split()[1]) for line in dirty]


def test_workers_on_one_machine_share_the_base_model_s_pages(bench: Bench) -> None:
    if not Path("/proc/self/smaps").exists():
        pytest.skip("only Linux says")
    before = sum(written_pages())  # other tests of this process may have written to theirs
    context = bench.context()  # keeps the model
    bench.made([bench.task("base", prompts=PROMPTS[:2])], context)
    assert written_pages(), "the weights are not mapped from the file"
    assert sum(written_pages()) <= before


class Stops:
    """A pulse that lets a worker go on for so many beats."""

    def __init__(self, beats: int) -> None:
        self.left, self.heard = beats, list[tuple[str, float]]()

    def beat(self, key: str, done: float, of: float) -> None:
        self.heard.append((key, done / of))
        self.left -= 1
        if self.left < 0:
            raise StoppedError


def test_a_task_says_at_each_step_how_far_it_is_and_stops_there_with_those_that_come_after_it(bench: Bench) -> None:
    pulse = Stops(10_000)
    tasks = [bench.task("one", prompts=PROMPTS[:3]), bench.task("two", prompts=PROMPTS[3:5])]
    found = bench.answers(tasks, dataclasses.replace(bench.context(), pulse=pulse))
    one = [share for key, share in pulse.heard if key == "one"]
    assert one == sorted(one)
    assert 0 < one[0] < one[-1] <= 1
    assert len(one) >= max(answer.generated_tokens for answer in found["one"])
    pulse = Stops(len(one) + 2)
    ended = bench.generator.generate(tasks, dataclasses.replace(bench.context(), pulse=pulse))
    assert next(ended)[0] == "one"
    with pytest.raises(StoppedError):
        next(ended)
    assert [key for key, _ in pulse.heard[len(one) :]] == ["two"] * 3


def test_sampled_answers_are_forecast_in_the_batches_in_which_they_are_given_and_cut_after_a_death(
    bench: Bench,
) -> None:
    settings, sampled = registry.settings_of(Kind.GENERATOR, "local/transformers")(), Decoding(16, temperature=1.0)
    work = Workload(400_000, 10**6, 500, longest=2000, base=bench.base)
    greedy, drawn = (
        dict(bench.generator.fit(settings, one, work).parts)["keys and values"] for one in (Decoding(16), sampled)
    )
    assert drawn == pytest.approx(greedy * 32 / (8192 // 2016)), "32 prompts, however long they are"
    assert bench.generator.fit(settings, sampled, work).cuts == 5
    steps = []
    for fit in (None, Fit(halvings=5)):
        pulse = Stops(10_000)
        task = dataclasses.replace(bench.task("one", prompts=PROMPTS[:3]), decoding=sampled, fit=fit)
        found = bench.answers([task], dataclasses.replace(bench.context(), pulse=pulse))
        tokens = [answer.generated_tokens for answer in found["one"]]
        assert len(pulse.heard) == (sum(tokens) if fit else max(tokens))
        steps.append(len(pulse.heard))
    assert steps[0] < steps[1]
