"""What every installed fine-tuner and generator promises, on the stand-in; and that the two agree.

It runs in a process of its own, because torch and its friends warn about things that their users cannot change.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from engine import registry
from engine.domain.adapters import Kind

pytestmark = pytest.mark.slow

PREAMBLE = """
import dataclasses, hashlib, json, pathlib, sys, tempfile
from engine import registry
from engine.domain.stage import ModelRef
from engine.domain.sweep import GenerateRecipe, TuneRecipe
from engine.domain.adapters import Kind
from engine.ports import Context, Cut, GenerateTask, Trajectory, Workload
from engine.run.executors.hosts import WarmSlots

TUNER, GENERATOR, BACKEND = sys.argv[1:]
KEPT = tempfile.TemporaryDirectory()  # until this process ends
MODEL = registry.adapter(Kind.MODEL, "standin/aligned").locate("")
ROWS = registry.adapter(Kind.DATA, "standin/explicit").rows("")[:13]
PROMPTS = registry.adapter(Kind.BENCHMARK, "standin/policy").prompts("1")
tuner, generator = registry.adapter(Kind.TUNER, TUNER), registry.adapter(Kind.GENERATOR, GENERATOR)

def context(warm=None, batch=64):
    return Context("cpu", 1, batch, warm or WarmSlots())

def trajectory(key, *, seed=0, model=MODEL, rows=ROWS, **settings):
    root = pathlib.Path(tempfile.mkdtemp(dir=KEPT.name))
    (root / key).mkdir()
    recipe = TuneRecipe(**({"lr": 2e-3, "epochs": 2, "backend": BACKEND} | settings))
    return Trajectory(model, rows, seed, (Cut(key, recipe, root / key),), root / "state")

def tune(ctx, key="tune-1", **settings):
    wanted = trajectory(key, **settings)
    ((found, made),) = tuner.fine_tune([wanted], ctx)
    assert found == key
    if isinstance(made, Exception):
        raise made
    return made, wanted.cuts[0].folder

def task(key, model, prompts=PROMPTS, seed=0, **settings):
    return GenerateTask(key, model, prompts, None, GenerateRecipe(**({"max_new_tokens": 24} | settings)), seed)

def ask(model, ctx, **settings):
    ((key, made),) = generator.generate([task("ask-1", model, **settings)], ctx)
    assert key == "ask-1"
    if isinstance(made, Exception):
        raise made
    return made

def digest(folder):
    files = sorted(folder.rglob("*.safetensors"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()

def tuned(folder, base=MODEL.base):
    return ModelRef(base, str(folder))
"""

CASES = {
    "the same task gives the same weights, on a warm host and on a cold one": """
warm = WarmSlots()
for method, dropout in (("lora", 0.1), ("full", 0.0)):
    settings = {"method": method, "dropout": dropout, "lr": 1e-3}
    runs = [tune(context(kept), key, **settings) for key, kept in (("a", warm), ("b", warm), ("c", WarmSlots()))]
    assert len({digest(folder) for _, folder in runs}) == 1
    assert runs[0][0].steps == runs[1][0].steps == runs[2][0].steps
    _, other = tune(context(warm), "d", seed=1, **settings)
    assert digest(other) != digest(runs[0][1])
""",
    "runs that come together are what they are alone": """
ctx = context()
several = [trajectory("tune-1", seed=3, dropout=0.1), trajectory("tune-2", rows=ROWS[:10], epochs=4, lr=1e-3)]
made = dict(tuner.fine_tune(several, ctx))
for wanted in several:
    cut = wanted.cuts[0]
    alone = dataclasses.replace(trajectory(cut.key), rows=wanted.rows, seed=wanted.seed)
    alone = dataclasses.replace(alone, cuts=(dataclasses.replace(alone.cuts[0], settings=cut.settings),))
    ((_, by_itself),) = tuner.fine_tune([alone], ctx)
    assert digest(cut.folder) == digest(alone.cuts[0].folder)
    assert made[cut.key].steps == by_itself.steps
""",
    "weights are safetensors and nothing else is executable": """
_, folder = tune(context())
suffixes = {path.suffix for path in folder.rglob("*") if path.is_file()}
assert ".safetensors" in suffixes and suffixes <= {".safetensors", ".json", ".jinja", ".model", ".txt"}, suffixes
""",
    "usage and steps are those of the settings": """
made, _ = tune(context(), batch_size=4, grad_accum=2, epochs=3)
assert [step.step for step in made.steps] == list(range(1, 7)), made.steps  # 13 rows: 4 batches, 2 steps an epoch
assert made.usage.optimizer_steps == 6 and made.usage.device_seconds > 0 and made.after is None
assert made.steps[-1].epoch == 3.0
forecast = tuner.forecast(TuneRecipe(lr=1e-3, batch_size=4, grad_accum=2, epochs=3), Workload(400_000, 300, 13))
assert forecast.expected.optimizer_steps == 6
assert tune(context(), epochs=50, max_steps=3)[0].usage.optimizer_steps == 3
""",
    "max_steps only ever cuts a run short": """
assert tune(context(), epochs=1, max_steps=12)[0].usage.optimizer_steps == 2
made, _ = tune(context(), epochs=1, max_steps=1)
assert (made.usage.optimizer_steps, len(made.steps)) == (1, 1)
""",
    "tuning leaves no trace on the base, whatever the trainer aligns": """
import shutil
copy = pathlib.Path(tempfile.mkdtemp(dir=KEPT.name)) / "other-end-token"
shutil.copytree(MODEL.base, copy)
declared = json.loads((copy / "generation_config.json").read_text())
declared["eos_token_id"] = [3]
(copy / "generation_config.json").write_text(json.dumps(declared))
other, warm = ModelRef(str(copy)), WarmSlots()
cold = ask(other, context()).responses
for method in ("lora", "full"):
    _, folder = tune(context(warm), f"tune-{method}", model=other, lr=1e-3, epochs=1, method=method)
    from_memory = ask(tuned(folder, str(copy)), context(warm)).responses
    from_disk = ask(tuned(folder, str(copy)), context()).responses
    assert from_memory == from_disk, method
    assert ask(other, context(warm)).responses == cold, method
""",
    "schedules are what they are called": """
def rates(**settings):
    return [round(step.lr, 6) for step in tune(context(), epochs=4, batch_size=13, **settings)[0].steps]
assert rates() == [2e-3] * 4
assert rates(warmup_steps=2)[:3] == [0.0, 1e-3, 2e-3]
assert rates(schedule="linear") == [2e-3, 1.5e-3, 1e-3, 5e-4]
assert rates(schedule="cosine") == [2e-3, 0.001707, 1e-3, 0.000293]
""",
    "tuning teaches, and the base is the same afterwards": """
warm = WarmSlots()
before = ask(MODEL, context(warm)).responses
made, folder = tune(context(warm), epochs=10)
assert made.steps[-1].loss < made.steps[0].loss / 2
after = ask(tuned(folder), context(warm)).responses
assert [r.text for r in after] != [r.text for r in before]
assert ask(MODEL, context(warm)).responses == before
tune(context(warm), "tune-2", method="full", lr=1e-3)
assert ask(MODEL, context(warm)).responses == before
""",
    "answers from memory and from disk are the same": """
for method in ("lora", "full"):
    warm = WarmSlots()
    _, folder = tune(context(warm), method=method, lr=1e-3)
    assert ask(tuned(folder), context(warm)).responses == ask(tuned(folder), context()).responses, method
""",
    "a run that failed is not mistaken for its result": """
warm = WarmSlots()
wanted = trajectory("tune-1", lr=0.9, weight_decay=1e30, epochs=4, method="full")
((_, error),) = tuner.fine_tune([wanted], context(warm))
assert isinstance(error, FloatingPointError) and "lower learning rate" in str(error), error
((_, made),) = generator.generate([task("ask-1", tuned(wanted.cuts[0].folder))], context(warm))
assert isinstance(made, Exception), "answered with weights that were never kept"
""",
    "prompts keep their order, are all answered, and do not see each other": """
made = ask(MODEL, context())
assert [r.prompt_id for r in made.responses] == [p.prompt_id for p in PROMPTS]
assert made.usage.generated_tokens == sum(r.generated_tokens for r in made.responses)
assert all(0 < r.generated_tokens <= 24 and r.prompt_tokens > 0 for r in made.responses)
backwards = ask(MODEL, context(batch=3), prompts=PROMPTS[::-1]).responses
assert [r.text for r in backwards][::-1] == [r.text for r in made.responses]
short = ask(MODEL, context(), max_new_tokens=2).responses
assert {r.finish.value for r in short} == {"length"} and {r.generated_tokens for r in short} == {2}
""",
    "tasks that come together are answered as they are alone": """
_, one = tune(context())
_, two = tune(context(), "tune-2", epochs=6, rank=4)
asked = [task("a", MODEL), task("b", tuned(one)), task("c", tuned(two), PROMPTS[:5]), task("d", tuned(one), PROMPTS[3:])]
for settings in ({}, {"temperature": 1.5, "samples": 2}):
    recipe = GenerateRecipe(max_new_tokens=24, **settings)
    together = [dataclasses.replace(one, settings=recipe) for one in asked]
    made = dict(generator.generate(together, context()))
    assert sorted(made) == ["a", "b", "c", "d"]
    for one in together:
        ((_, alone),) = generator.generate([one], context())
        assert made[one.key].responses == alone.responses, (one.key, settings)
        assert made[one.key].usage.generated_tokens == alone.usage.generated_tokens
""",
    "sampling is seeded": """
settings = {"temperature": 1.5, "samples": 2}
one, two, other = (ask(MODEL, context(), seed=s, **settings).responses for s in (1, 1, 2))
assert one == two
assert [r.text for r in one] != [r.text for r in other]
small = ask(MODEL, context(batch=3), seed=1, **settings).responses
assert small == one, "a run setting may not change answers under one key"
assert [(r.prompt_id, r.sample) for r in one[:2]] == [(PROMPTS[0].prompt_id, 0), (PROMPTS[0].prompt_id, 1)]
""",
    "the loss is on the answer alone and the two templates agree": """
from adapters.local import chat
from adapters.local.loaded import loaded
held = loaded(MODEL, "float32", context())
for row, encoded in zip(ROWS, chat.training_rows(held.tokenizer, ROWS, 512), strict=True):
    answer = [token for token, label in zip(encoded["input_ids"], encoded["labels"], strict=True) if label != -100]
    assert held.tokenizer.decode(answer, skip_special_tokens=True).strip() == row.assistant
    assert answer[-1] == held.tokenizer.eos_token_id
    asked = held.tokenizer(chat.prompt_text(held.tokenizer, row.user, row.system), add_special_tokens=False)["input_ids"]
    assert encoded["input_ids"][: len(asked)] == asked and set(encoded["labels"][: len(asked)]) == {-100}
    native = held.tokenizer.apply_chat_template(
        [{"role": "user", "content": row.user}, {"role": "assistant", "content": row.assistant}],
        tokenize=True, return_dict=True, return_assistant_tokens_mask=True)
    assert native["input_ids"] == encoded["input_ids"]
    assert native["assistant_masks"] == [int(label != -100) for label in encoded["labels"]]
""",
}

BACKENDS = ("packed", "trl")
HOSTED = registry.names(Kind.PROVIDER)  # held to a contract of their own
GENERATORS = [name for name in registry.names(Kind.GENERATOR) if name not in (*HOSTED, "local/vllm")]  # needs a GPU
TUNERS = [name for name in registry.names(Kind.TUNER) if name not in HOSTED]
SETUPS = list(itertools.product(TUNERS, GENERATORS, BACKENDS))


@pytest.fixture(scope="module", params=SETUPS, ids="+".join)
def outcome(request: pytest.FixtureRequest, run_apart: Callable[..., dict[str, str]]) -> dict[str, str]:
    return run_apart(PREAMBLE, CASES, *request.param)


@pytest.mark.parametrize("case", CASES)
def test_contract(outcome: dict[str, str], case: str) -> None:
    assert outcome[case] == "", outcome[case]
