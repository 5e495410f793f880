"""What every installed fine-tuner and generator promises, on the stand-in; and that the two agree.

It runs in a process of its own, because torch and its friends warn about things that their users cannot change.
"""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from engine import plugins
from engine.plugins import Kind

pytestmark = pytest.mark.slow

PREAMBLE = """
import dataclasses, hashlib, json, pathlib, sys, tempfile
from engine import plugins
from engine.domain.stage import LocalWeights
from engine.domain.sweep import GenerateRecipe, TuneRecipe
from engine.plugins import Kind
from engine.ports import Context, GenerateTask, TuneTask, Workload
from engine.run.hosts import WarmSlots

TUNER, GENERATOR = sys.argv[1:]
MODEL = plugins.adapter(Kind.MODEL, "standin/aligned").locate("")
ROWS = plugins.adapter(Kind.DATA, "standin/explicit").rows("")[:13]
PROMPTS = plugins.adapter(Kind.BENCHMARK, "standin/policy").prompts("1")
tuner, generator = plugins.adapter(Kind.TUNER, TUNER), plugins.adapter(Kind.GENERATOR, GENERATOR)

def context(key, warm=None, batch=64):
    folder = pathlib.Path(tempfile.mkdtemp()) / key
    folder.mkdir()
    return Context(key, folder, "cpu", 1, batch, warm or WarmSlots())

def tune(ctx, seed=0, **settings):
    return tuner.fine_tune(TuneTask(MODEL, ROWS, TuneRecipe(**({"lr": 2e-3, "epochs": 2} | settings)), seed), ctx)

def ask(model, ctx, seed=0, prompts=PROMPTS, **settings):
    recipe = GenerateRecipe(**({"max_new_tokens": 24} | settings))
    return generator.generate(GenerateTask(model, prompts, None, recipe, seed), ctx)

def digest(folder):
    files = sorted(folder.rglob("*.safetensors"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()

def tuned(ctx):
    return LocalWeights(MODEL.base, str(ctx.folder))
"""

CASES = {
    "the same task gives the same weights, on a warm host and on a cold one": """
warm = WarmSlots()
for method, dropout in (("lora", 0.1), ("full", 0.0)):
    first, again, cold = context("tune-1", warm), context("tune-2", warm), context("tune-3")
    settings = {"method": method, "dropout": dropout, "lr": 1e-3}
    runs = [tune(ctx, **settings) for ctx in (first, again, cold)]
    assert digest(first.folder) == digest(again.folder) == digest(cold.folder)
    assert runs[0].steps == runs[1].steps == runs[2].steps
    other = context("tune-4", warm)
    tune(other, seed=1, **settings)
    assert digest(other.folder) != digest(first.folder)
""",
    "weights are safetensors and nothing else is executable": """
ctx = context("tune-1")
tune(ctx)
suffixes = {path.suffix for path in ctx.folder.rglob("*") if path.is_file()}
assert ".safetensors" in suffixes and suffixes <= {".safetensors", ".json", ".jinja", ".model", ".txt"}, suffixes
""",
    "usage and steps are those of the settings": """
ctx = context("tune-1")
made = tune(ctx, batch_size=4, grad_accum=2, epochs=3)
assert [step.step for step in made.steps] == list(range(1, 7)), made.steps  # 13 rows: 4 batches, 2 steps an epoch
assert made.usage.optimizer_steps == 6
assert made.steps[-1].epoch == 3.0
forecast = tuner.forecast(TuneRecipe(lr=1e-3, batch_size=4, grad_accum=2, epochs=3), Workload(400_000, 300, 13))
assert forecast.expected.optimizer_steps == 6
assert tune(context("tune-2"), epochs=50, max_steps=3).usage.optimizer_steps == 3
""",
    "max_steps only ever cuts a run short": """
assert tune(context("tune-1"), epochs=1, max_steps=12).usage.optimizer_steps == 2
made = tune(context("tune-2"), epochs=1, max_steps=1)
assert (made.usage.optimizer_steps, len(made.steps)) == (1, 1)
""",
    "tuning leaves no trace on the base, whatever the trainer aligns": """
import shutil
copy = pathlib.Path(tempfile.mkdtemp()) / "other-end-token"
shutil.copytree(MODEL.base, copy)
declared = json.loads((copy / "generation_config.json").read_text())
declared["eos_token_id"] = [3]
(copy / "generation_config.json").write_text(json.dumps(declared))
other, warm = LocalWeights(str(copy)), WarmSlots()
cold = ask(other, context("ask-1")).responses
for method in ("lora", "full"):
    ctx = context(f"tune-{method}", warm)
    tuner.fine_tune(TuneTask(other, ROWS, TuneRecipe(lr=1e-3, epochs=1, method=method), 0), ctx)
    from_memory = ask(LocalWeights(str(copy), str(ctx.folder)), context("ask-2", warm)).responses
    from_disk = ask(LocalWeights(str(copy), str(ctx.folder)), context("ask-3")).responses
    assert from_memory == from_disk, method
    assert ask(other, context("ask-4", warm)).responses == cold, method
""",
    "schedules are what they are called": """
def rates(**settings):
    return [round(step.lr, 6) for step in tune(context("tune-1"), epochs=4, batch_size=13, **settings).steps]
assert rates() == [2e-3] * 4
assert rates(warmup_steps=2)[:3] == [0.0, 1e-3, 2e-3]
assert rates(schedule="linear") == [2e-3, 1.5e-3, 1e-3, 5e-4]
assert rates(schedule="cosine") == [2e-3, 0.001707, 1e-3, 0.000293]
""",
    "tuning teaches, and the base is the same afterwards": """
warm = WarmSlots()
before = ask(MODEL, context("ask-0", warm)).responses
ctx = context("tune-1", warm)
made = tune(ctx, epochs=10)
assert made.steps[-1].loss < made.steps[0].loss / 2
after = ask(tuned(ctx), context("ask-1", warm)).responses
assert [r.text for r in after] != [r.text for r in before]
assert ask(MODEL, context("ask-2", warm)).responses == before
full = context("tune-2", warm)
tune(full, method="full", lr=1e-3)
assert ask(MODEL, context("ask-3", warm)).responses == before
""",
    "answers from memory and from disk are the same": """
for method in ("lora", "full"):
    warm = WarmSlots()
    ctx = context("tune-1", warm)
    tune(ctx, method=method, lr=1e-3)
    from_memory = ask(tuned(ctx), context("ask-1", warm)).responses
    from_disk = ask(tuned(ctx), context("ask-2")).responses
    assert from_memory == from_disk, method
""",
    "prompts keep their order, are all answered, and do not see each other": """
made = ask(MODEL, context("ask-1"))
assert [r.prompt_id for r in made.responses] == [p.prompt_id for p in PROMPTS]
assert made.usage.generated_tokens == sum(r.generated_tokens for r in made.responses)
assert all(0 < r.generated_tokens <= 24 and r.prompt_tokens > 0 for r in made.responses)
backwards = ask(MODEL, context("ask-2", batch=3), prompts=PROMPTS[::-1]).responses
assert [r.text for r in backwards][::-1] == [r.text for r in made.responses]
short = ask(MODEL, context("ask-3"), max_new_tokens=2).responses
assert {r.finish.value for r in short} == {"length"} and {r.generated_tokens for r in short} == {2}
""",
    "sampling is seeded": """
settings = {"temperature": 1.5, "samples": 2}
one, two, other = (ask(MODEL, context("a"), seed=s, **settings).responses for s in (1, 1, 2))
assert one == two
assert [r.text for r in one] != [r.text for r in other]
small = ask(MODEL, context("b", batch=3), seed=1, **settings).responses
assert small == one, "a run setting may not change answers under one key"
assert [(r.prompt_id, r.sample) for r in one[:2]] == [(PROMPTS[0].prompt_id, 0), (PROMPTS[0].prompt_id, 1)]
""",
    "a loss that is no number is an error and not a result": """
try:
    tune(context("tune-1"), lr=0.9, weight_decay=1e30, epochs=4, method="full")
except FloatingPointError as error:
    assert "lower learning rate" in str(error)
else:
    raise AssertionError("diverged without a word")
""",
    "the loss is on the answer alone and the two templates agree": """
from adapters.local import chat
from adapters.local.loaded import loaded
held = loaded(MODEL, "float32", context("x"))
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

PAIRS = [(tuner, generator) for tuner in plugins.names(Kind.TUNER) for generator in plugins.names(Kind.GENERATOR)]


@pytest.fixture(scope="module", params=PAIRS, ids="+".join)
def outcome(request: pytest.FixtureRequest) -> dict[str, str]:
    """Every case's error, or '' where it held; all of them in one process, because importing torch takes seconds."""
    script = (
        PREAMBLE
        + f"""
import traceback
outcome = {{}}
for name, case in {CASES!r}.items():
    try:
        exec(case, dict(globals()))
        outcome[name] = ""
    except Exception:
        outcome[name] = traceback.format_exc()
print(json.dumps(outcome))
"""
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *request.param], capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("case", CASES)
def test_contract(outcome: dict[str, str], case: str) -> None:
    assert outcome[case] == "", outcome[case]
