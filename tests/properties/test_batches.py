"""What a model answers does not depend on who is asked beside it: not the answers, and not one bit of their logits.

It runs in a process of its own, because torch and its friends warn about things that their users cannot change.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

SCRIPT = """
import dataclasses, hashlib
import torch
from hypothesis import given, settings, strategies as st

from adapters.local import chat, lora
from adapters.local import llama as form
from adapters.local.decoding import groups, llama, merged
from adapters.local.decoding.decode import Batch
from adapters.local.decoding.questions import Question, Rules, shared_tokens
from adapters.local.loaded import LoadedModel
from engine import registry
from engine.domain.sweep import TuneRecipe
from engine.domain.adapters import Kind

torch.set_num_threads(1)
held = LoadedModel(registry.adapter(Kind.MODEL, "standin/aligned").locate("").base, "float32", "cpu")
model, taken = held.base, groups.footprint(held.base)
texts = [prompt.text for prompt in registry.adapter(Kind.BENCHMARK, "standin/policy").prompts("")[::11]]
texts += [prompt.text for prompt in registry.adapter(Kind.BENCHMARK, "standin/utility").prompts("")[::16]]
texts += [" ".join(texts[:4]), " ".join(texts[:2]), " ".join(texts * 2)]
SYSTEM = "you answer in one sentence and you are kind to all who ask you for help with a thing"

def moved(rank, seed):
    drawn = lora.drawn(model, lora.configured(TuneRecipe(lr=1e-3, rank=rank)), seed)
    draw = torch.Generator().manual_seed(seed)
    b = {path: 0.08 * torch.randn(weight.shape, generator=draw) for path, weight in drawn.b.items()}
    return dataclasses.replace(drawn, b=b)

ADAPTERS = [moved(rank, seed) for seed, rank in enumerate((8, 1, 8, 16, 4, 8))]

def encoded(system):
    return [held.tokenizer(chat.prompt_text(held.tokenizer, text, system), add_special_tokens=False)["input_ids"]
            for text in texts]

PLAIN, INSTRUCTED = encoded(None), encoded(SYSTEM)
assert shared_tokens(INSTRUCTED) >= 16 and shared_tokens(PLAIN) == 0
ROWS = [(prompt, 0) for prompt in PLAIN] + [(prompt, shared_tokens(INSTRUCTED)) for prompt in INSTRUCTED]
ROWS += [(PLAIN[-1][:length], 0) for length in (1, 2, 3, 17, 40)]  # all of one is another's beginning
bits = {}

class Spy(Batch):
    def _logits(self):
        made = super()._logits()
        for seat, alive, logits in zip(self._seat.tolist(), self._alive.tolist(), made, strict=True):
            if alive:
                step = self._seats[seat].task, self._seats[seat].index, self._steps, form.SMALL, merged.SMALL
                digest = hashlib.sha256(logits.numpy().tobytes()).hexdigest()
                assert bits.setdefault(step, digest) == digest, step
        return made

groups.Batch = Spy

def ask(who, rows, size, reach, limit):
    groups.IN_REACH = reach
    members = []
    for index in who:
        questions = [Question(str(index), row, *ROWS[row]) for row in rows[index]]
        members.append(groups.Member(ADAPTERS[index], sorted(questions, key=lambda one: -len(one.tokens))))
    rules = Rules(limit, frozenset({4}), 0)
    found = {}
    for event in groups.answers(model, members, rules, taken, size):
        found |= {(one.question.task, one.question.index): (tuple(one.tokens), one.finish) for one in event}
    return found

some_rows = st.lists(st.sampled_from(range(len(ROWS))), min_size=1, max_size=12, unique=True)
known = {}

@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    who=st.lists(st.sampled_from(range(len(ADAPTERS))), min_size=1, unique=True),
    rows=st.lists(some_rows, min_size=len(ADAPTERS), max_size=len(ADAPTERS)),
    size=st.integers(1, 20),
    reach=st.sampled_from([1, 2**20, 2**30]),
    small=st.sampled_from([(form.SMALL, 0), (0, merged.SMALL), (0, 0)]),  # written out, folded, neither
    once=st.sampled_from([40, llama.AT_ONCE]),
)
def answers_do_not_depend_on_company(who, rows, size, reach, small, once):
    form.SMALL, merged.SMALL = small
    llama.AT_ONCE = once
    found = ask(who, rows, size, reach, 20)
    assert set(found) == {(str(index), row) for index in who for row in rows[index]}
    for key, answer in found.items():
        assert known.setdefault(key, answer) == answer, key

answers_do_not_depend_on_company()
answers = {answer for answer, _ in known.values()}
assert len(known) > 40 and len(answers) > 20, (len(known), len(answers))
assert len({len(answer) for answer in answers}) > 5, "answers of one length say little about rows that leave"
base_alone = {}
for event in groups.answers(model, [groups.Member(None, [Question("base", row, *ROWS[row]) for row in range(3)])],
                             Rules(24, frozenset({4}), 0), taken, 1):
    base_alone |= {one.question.index: one.tokens for one in event}
assert len(base_alone) == 3
print("held")
"""


def test_answers_and_their_logits_do_not_depend_on_company() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("held\n")
