"""Answers of many adapters at once are those of transformers' own loop, and what goes wrong stays where it is.

The cases run in a process of their own, because torch and its friends warn about things that their users cannot change.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

pytestmark = pytest.mark.slow

PREAMBLE = """
import dataclasses, json, pathlib, tempfile, time
import torch
from transformers import AutoModelForCausalLM

from adapters.local import llama as form
from adapters.local import lora
from adapters.local.decoding import answers
from adapters.local.decoding import groups
from adapters.local.decoding.decode import Batch
from adapters.local.generate import TransformersGenerator
from adapters.local.loaded import Remembered, loaded
from engine import registry
from engine.domain.stage import ModelRef
from engine.domain.sweep import GenerateRecipe, TuneRecipe
from engine.domain.adapters import Kind
from engine.ports import Context, GenerateTask
from engine.run.executors.hosts import WarmSlots

BASE = registry.adapter(Kind.MODEL, "standin/aligned").locate("")
PROMPTS = list(registry.adapter(Kind.BENCHMARK, "standin/policy").prompts(""))[::9]
SYSTEM = "you answer in one sentence and you are kind to all who ask you for help with a thing"
KEPT = tempfile.TemporaryDirectory()  # until this process ends
FOLDER = pathlib.Path(KEPT.name)

def context(batch=128):
    return Context("cpu", 1, batch, WarmSlots())

def host(ctx):
    return loaded(BASE, "float32", ctx)

def moved(name, rank, seed):
    # An adapter that is far from doing nothing, on disk.
    config, model = lora.configured(TuneRecipe(lr=1e-3, rank=rank)), host(context()).base
    drawn, draw = lora.drawn(model, config, seed), torch.Generator().manual_seed(seed)
    b = {path: 0.08 * torch.randn(weight.shape, generator=draw) for path, weight in drawn.b.items()}
    (FOLDER / name).mkdir()
    lora.save(dataclasses.replace(drawn, b=b), config, FOLDER / name)
    return ModelRef(BASE.base, str(FOLDER / name))

WEIGHTS = [BASE, *(moved(f"tune-{seed}", rank, seed) for seed, rank in enumerate((8, 4, 8)))]

def task(key, weights=BASE, prompts=PROMPTS, system=None, **settings):
    return GenerateTask(key, weights, prompts, system, GenerateRecipe(**({"max_new_tokens": 24} | settings)), 0)

def run(tasks, ctx=None):
    return dict(TransformersGenerator().generate(tasks, ctx or context()))

def alone(tasks, ctx=None):
    # transformers' own loop, one prompt at a time
    kept, groups.footprint = groups.footprint, lambda model: None
    try:
        return run(tasks, ctx or context(batch=1))
    finally:
        groups.footprint = kept

def texts(made):
    return {key: one.responses for key, one in made.items()}
"""

CASES = {
    "answers are those of transformers' own loop, for every adapter, with and without a shared beginning": """
tasks = [task(f"{index} {system}", weights, PROMPTS[index:], system) for index, weights in enumerate(WEIGHTS)
         for system in (None, SYSTEM)]
together = run(tasks)
assert texts(together) == texts(alone(tasks))
assert len({one.text for made in together.values() for one in made.responses}) > len(PROMPTS)
assert {one.finish.value for made in together.values() for one in made.responses} == {"stop", "length"}
""",
    "fully tuned weights are answered by the same loop": """
model = AutoModelForCausalLM.from_pretrained(BASE.base)
with torch.no_grad():
    model.model.norm.weight.mul_(torch.linspace(0.5, 1.5, 96))
model.save_pretrained(FOLDER / "tune-whole")
whole = task("whole", ModelRef(BASE.base, str(FOLDER / "tune-whole")))
tasks = [task("before"), whole, task("after")]
together = run(tasks)
assert texts(together) == texts(alone(tasks))
assert [r.text for r in together["before"].responses] == [r.text for r in together["after"].responses]
assert [r.text for r in together["before"].responses] != [r.text for r in together["whole"].responses]
""",
    "written out, folded and unfolded adapters answer alike, and the model comes out of all as it was": """
from adapters.local.decoding import llama, merged
before = {name: weight.clone() for name, weight in host(context()).base.named_parameters()}
tasks, ctx = [task(str(index), weights) for index, weights in enumerate(WEIGHTS[1:])], context()
held, kept = host(ctx), (form.SMALL, merged.SMALL)
assert all(llama.takes(held.base, held.adapter(weights).a) for weights in WEIGHTS[1:])
written = texts(run(tasks, ctx))
form.SMALL = 0
assert not llama.takes(held.base, held.adapter(WEIGHTS[1]).a)
assert all(merged.folds(held.base, held.adapter(weights)) for weights in WEIGHTS[1:])
assert texts(run(tasks, ctx)) == written
merged.SMALL = 0
assert not merged.folds(held.base, held.adapter(WEIGHTS[1]))
assert texts(run(tasks, ctx)) == written
form.SMALL, merged.SMALL = kept
after = dict(held.base.named_parameters())
assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in after)
assert held.base.config._attn_implementation == "sdpa"
""",
    "it does not matter whether a host tunes or answers first": """
from engine.ports import Cut, Trajectory
tuner, rows = registry.adapter(Kind.TUNER, "local/sft"), list(registry.adapter(Kind.DATA, "standin/explicit").rows(""))
def trained(ctx, name):
    recipe = TuneRecipe(lr=2e-3, epochs=1, batch_size=4)
    (FOLDER / name).mkdir()
    cut = Cut(name, recipe, FOLDER / name)
    made = dict(tuner.fine_tune([Trajectory(BASE, rows[:8], 0, (cut,), FOLDER / f"state {name}", False)], ctx))
    assert not isinstance(made[name], Exception), made
    return (FOLDER / name / "adapter_model.safetensors").read_bytes()
first, second = context(), context()
answers = texts(run([task("one", WEIGHTS[1]), task("base")], first))
weights = trained(first, "tuned after")
assert trained(second, "tuned before") == weights
assert texts(run([task("one", WEIGHTS[1]), task("base")], second)) == answers
assert texts(run([task("one", WEIGHTS[1]), task("base")], first)) == answers
""",
    "what memory does not hold at once is answered in smaller batches": """
whole = texts(run(tasks := [task(str(index), weights) for index, weights in enumerate(WEIGHTS[1:])]))
seen = []
class Tight(Batch):
    def __init__(self, model, adapters, asked, rules):
        seen.append((len(asked), max(map(len, asked))))
        if len(asked) * max(map(len, asked)) > 5:
            raise torch.OutOfMemoryError("not here")
        super().__init__(model, adapters, asked, rules)
groups.Batch = Tight
assert texts(run(tasks)) == whole
assert seen[0] == (3, 13) and (1, 13) in seen and max(members for members, _ in seen[-3:]) == 1, seen
class Never(Batch):
    def __init__(self, *_):
        raise torch.OutOfMemoryError("nowhere")
groups.Batch = Never
assert {key: type(made) for key, made in run(tasks).items()} == {key: torch.OutOfMemoryError for key in whole}
groups.Batch = Batch
""",
    "a task that fails takes no other with it": """
(FOLDER / "tune-torn").mkdir()
torn = ModelRef(BASE.base, str(FOLDER / "tune-torn"))
odd = [dataclasses.replace(PROMPTS[0], text=3.5)]
made = run([task("torn", torn), task("good", WEIGHTS[1]), task("odd", prompts=odd), task("base")])
assert {key for key, one in made.items() if isinstance(one, Exception)} == {"torn", "odd"}, made
assert texts({"good": made["good"]}) == texts(run([task("good", WEIGHTS[1])]))
""",
    "shares of the time add up to it, and short tasks come first": """
ctx = context()
list(TransformersGenerator().generate([task("warm")], ctx))
tasks = [task("long", WEIGHTS[1]), task("short", WEIGHTS[2], PROMPTS[:1])]
began = time.perf_counter()
made = dict(TransformersGenerator().generate(tasks, ctx))
wall = time.perf_counter() - began
shares = [one.usage.device_seconds for one in made.values()]
assert 0.7 * wall < sum(shares) <= wall, (wall, shares)
assert made["long"].usage.device_seconds > made["short"].usage.device_seconds > 0
""",
    "a model's own settings of decoding are left to transformers": """
model = host(context()).base
assert groups.footprint(model) == groups.Footprint(2 * 3 * 96 * 4, float("inf"))
model.generation_config.repetition_penalty = 1.3
assert groups.footprint(model) is None
model.generation_config.repetition_penalty = 1.0
model.config.sliding_window = 40
assert groups.footprint(model).longest == 40
""",
    "a computation that is not the model's own is noticed": """
from adapters.local.decoding import cache
model = host(context()).base
mask, small = cache.Places.mask, form.SMALL
cache.Places.mask = lambda self, dtype: mask(self, dtype) * 0
assert groups.footprint(model) == groups.Footprint(2 * 3 * 96 * 4, float("inf"))  # what is written out has its own
form.SMALL = 0
assert groups.footprint(model) is None
cache.Places.mask = mask
assert groups.footprint(model) == groups.Footprint(2 * 3 * 96 * 4, float("inf"))
form.SMALL = small
""",
    "what is written out is not used for a model that computes something else: its modules are": """
from adapters.local.decoding import llama
def hooked(batch=128):
    ctx = context(batch)
    host(ctx).base.model.layers[1].mlp.register_forward_hook(lambda module, asked, made: 1.5 * made)
    return ctx
model = host(hooked()).base
assert llama.takes(model, ())
assert groups.footprint(model) == groups.Footprint(2 * 3 * 96 * 4, float("inf"), by_modules=True)
ctx = hooked()
host(ctx).to_tune("tune-other", lora.configured(TuneRecipe(lr=1e-3)))
assert not llama.takes(host(ctx).base, ())
assert answers._footprint(host(ctx), task("any"), ctx).by_modules, "it was tried with an adapter on it"
tasks = [task(str(index), weights) for index, weights in enumerate(WEIGHTS)]
found = texts(run(tasks, hooked()))
assert found == texts(alone(tasks, hooked(batch=1)))
assert found != texts(run(tasks))
""",
    "what is written out is not used for a model that is built of other parts: its modules are": """
from adapters.local.decoding import llama
kept = llama.LlamaPasses.step
def step(self, *_):
    raise AttributeError("no such part")
llama.LlamaPasses.step = step
assert groups.footprint(host(context()).base) == groups.Footprint(2 * 3 * 96 * 4, float("inf"), by_modules=True)
tasks = [task(str(index), weights) for index, weights in enumerate(WEIGHTS[1:])]
found = texts(run(tasks))
llama.LlamaPasses.step = kept
assert found == texts(run(tasks))
""",
    "the host remembers the adapters that it used last": """
one = lora.read(FOLDER / "tune-0")
size = sum(weight.nbytes for weights in (one.a, one.b) for weight in weights.values())
memory = Remembered(limit=2 * size)
for key in ("a", "b"):
    memory.put(key, one)
assert memory.get("a") is one
memory.put("c", one)
memory.put("c", one)
assert memory.get("b") is None and memory.get("a") is one and memory.get("c") is one
held = host(context())
held.remember("tune-gone", one)
assert held.adapter(ModelRef(BASE.base, "/nowhere/tune-gone")) is one and held.adapter(BASE) is None
""",
    "hosts on one machine share the base model's pages": """
import sys
held = host(context())
run([task("base", prompts=PROMPTS[:2])])
if sys.platform == "linux":
    regions = pathlib.Path("/proc/self/smaps").read_text().split(chr(10))
    found = [at for at, line in enumerate(regions) if line.endswith("aligned/model.safetensors")]
    assert found, "the weights are not mapped from the file"
    dirty = [line.split()[1] for at in found for line in regions[at : at + 20] if line.startswith("Private_Dirty")]
    assert set(dirty[: len(found)]) == {"0"}, dirty
""",
}


@pytest.fixture(scope="module")
def outcome(run_apart: Callable[..., dict[str, str]]) -> dict[str, str]:
    return run_apart(PREAMBLE, CASES)


@pytest.mark.parametrize("case", CASES)
def test_decoding(outcome: dict[str, str], case: str) -> None:
    assert outcome[case] == "", outcome[case]
