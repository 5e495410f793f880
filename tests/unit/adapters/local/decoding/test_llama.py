"""Passes written out for Llama have the logits of transformers' own, whatever the heads, angles and adapted modules.

The cases run in a process of their own, because torch and its friends warn about things that their users cannot change.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

pytestmark = pytest.mark.slow

PREAMBLE = """
import copy
import torch
from torch.nn.functional import linear
from transformers import LlamaConfig, LlamaForCausalLM

from adapters.local import llama as form
from adapters.local.decoding import groups, llama
from adapters.local.decoding.decode import best, passes
from adapters.local.decoding.passes import ModulePasses
from adapters.local.decoding.questions import Question
from adapters.local.lora import Adapter

torch.set_num_threads(1)
ROPES = {
    "default": {"rope_type": "default", "rope_theta": 10000.0},
    "linear": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0},
    "llama3": {"rope_type": "llama3", "rope_theta": 500.0, "factor": 8.0, "low_freq_factor": 1.0,
               "high_freq_factor": 4.0, "original_max_position_embeddings": 64},
}
SOME = ("self_attn.q_proj", "self_attn.v_proj", "mlp.up_proj")

def made(rope="default", **changed):
    torch.manual_seed(7)
    shape = dict(vocab_size=90, hidden_size=48, intermediate_size=80, num_hidden_layers=3, num_attention_heads=6,
                 num_key_value_heads=2, head_dim=12, max_position_embeddings=512, tie_word_embeddings=False,
                 rope_parameters=ROPES[rope], attn_implementation="sdpa", rms_norm_eps=1e-5)
    model = LlamaForCausalLM(LlamaConfig(**(shape | changed))).eval()
    for name, weight in model.named_parameters():
        weight.data.normal_(std=0.3 if "norm" not in name else 0.2).add_(1.0 if "norm" in name else 0.0)
    return model

def adapted(model, seed, rank, kinds=SOME):
    draw = torch.Generator().manual_seed(seed)
    a, b = {}, {}
    for path, module in model.named_modules():
        if path.endswith(kinds):
            out, into = module.weight.shape
            a[path] = torch.randn(rank, into, generator=draw) / into**0.5
            b[path] = 0.3 * torch.randn(out, rank, generator=draw)
    return Adapter(rank, 1.5, a, b)

def alone(model, adapter):
    # The same model with the adapter in its weights.
    own = copy.deepcopy(model)
    for path in () if adapter is None else adapter.a:
        own.get_submodule(path).weight.data += adapter.scaling * adapter.b[path] @ adapter.a[path]
    return own

def rows(lengths, seed, shared=0):
    draw = torch.Generator().manual_seed(seed)
    texts = [torch.randint(5, 90, (length,), generator=draw).tolist() for length in lengths]
    return [Question("t", index, [*texts[0][:shared], *text[shared:]], shared) for index, text in enumerate(texts)]

@torch.inference_mode()
def close(model, adapters, questions, steps=20):
    # Every member reads its questions and then goes on with the tokens that transformers finds likeliest.
    computed, block = passes(model, adapters, 0), len(questions) // len(adapters or [None])
    assert isinstance(computed, llama.LlamaPasses)
    whole = [alone(model, adapter) for adapter in adapters or [None]]
    texts = [list(one.tokens) for one in questions]
    with computed.attached():
        computed.read(questions, block)
        for _ in range(steps):
            positions = torch.tensor([len(text) - 1 for text in texts])
            found = computed.step(torch.tensor([text[-1] for text in texts]), positions, int(positions.max())).clone()
            for row, text in enumerate(texts):
                truth = whole[row // block](input_ids=torch.tensor([text])).logits[0, -1]
                assert (found[row] - truth).abs().max() <= 2e-5 * truth.abs().max(), (row, len(text))
                text.append(int(truth.argmax()))
"""

CASES = {
    "grouped heads, of any size, and any angles": """
for rope in ROPES:
    model = made(rope)
    adapters = [adapted(model, 1, 4), adapted(model, 2, 1)]
    close(model, adapters, rows((30, 17, 5, 1, 28, 9, 2, 3), 3))
""",
    "one head of keys, tied embeddings, no adapter": """
model = made(num_key_value_heads=1, tie_word_embeddings=True)
close(model, None, rows((12, 7, 3, 1), 3))
""",
    "as many heads of keys as of queries, all modules adapted": """
model = made(num_key_value_heads=6)
adapters = [adapted(model, seed, 2, form.LINEARS) for seed in range(3)]
close(model, adapters, rows((9, 8, 7, 6) * 3, 4))
""",
    "long prompts, shared beginnings, and single tokens": """
model = made("llama3")
adapters = [adapted(model, 1, 4), adapted(model, 2, 8)]
long, short = rows((300, 280, 150, 129), 5, shared=144 - 16), rows((20, 18, 17, 17), 6, shared=16)
close(model, adapters, [*long, *short], steps=3)
close(model, adapters, [*rows((131, 1, 1, 1), 5), *rows((1, 1, 1, 2), 6)], steps=3)
close(model, adapters[:1], [*rows((256, 250, 240), 2, shared=144), *rows((130,), 1)], steps=3)  # one is read before others go on
""",
    "rows of any length are the same bits alone and in any company, and those that begin alike, too": """
import random
@torch.inference_mode()
def together(model, adapters, questions, block, by_modules):
    computed = passes(model, adapters, 0, by_modules=by_modules)
    positions = torch.tensor([len(one.tokens) - 1 for one in questions])
    with computed.attached():
        computed.read(questions, block)
        return computed.step(torch.tensor([one.tokens[-1] for one in questions]), positions, int(positions.max())).clone()
kept = llama.AT_ONCE
# A width of 80 is not for modules: what is beyond a multiple of 32 numbers of all rows, torch's silu computes by other code.
for groups_of_keys, dim, wide, by_modules in ((2, 12, 80, False), (1, 24, 80, False), (2, 12, 96, True)):
    model = made("llama3", num_key_value_heads=groups_of_keys, head_dim=dim, intermediate_size=wide)
    chance, bits = random.Random(0), {}
    adapters = [adapted(model, seed, 4) for seed in range(2)]
    pool = rows((1, 2, 5, 17, 60, 140, 260, 290, 500), 1) + rows((20, 18, 40, 150), 2, shared=16)
    pool += [Question("t", 0, pool[8].tokens[:length]) for length in (1, 2, 3, 16, 61, 139, 291)]
    pool += [Question("t", 0, [*pool[8].tokens[:length], 7, 8, 9]) for length in (1, 30, 288)]
    for row, question in enumerate(pool):
        idle = [Question("", 0, [0])] * 3  # a batch has at least four rows
        bits[0, row] = together(model, adapters[:1], [question, *idle], 4, by_modules)[0]
    for _ in range(40):
        llama.AT_ONCE = chance.choice((16, 500, 2048))
        members, block = chance.sample((0, 1), chance.choice((1, 2))), chance.choice((4, 5, 9))
        asked = [(member, row) for member in members for row in chance.choices(range(len(pool)), k=block)]
        found = together(model, [adapters[one] for one in members], [pool[row] for _, row in asked], block, by_modules)
        for key, logits in zip(asked, found, strict=True):
            assert torch.equal(bits.setdefault(key, logits), logits), (key, by_modules)
    assert len(bits) == 2 * len(pool)
llama.AT_ONCE = kept
""",
    "rows and members that leave": """
model = made()
adapters = [adapted(model, seed, 4) for seed in range(3)]
whole = [alone(model, adapter) for adapter in adapters]
asked = rows((30, 17, 5, 8, 28, 9) * 3, 3)
with torch.inference_mode():
    computed = passes(model, adapters, 0)
    computed.read(asked, 6)
    keep = [0, 2, 3, 5, 13, 14, 15, 12]
    computed.select(torch.tensor(keep), [0, 2])
    tokens, positions = ([f(asked[row]) for row in keep] for f in (lambda q: q.tokens[-1], lambda q: len(q.tokens) - 1))
    found = computed.step(torch.tensor(tokens), torch.tensor(positions), max(positions))
    for row, logits in zip(keep, found, strict=True):
        truth = whole[row // 6](input_ids=torch.tensor([list(asked[row].tokens)])).logits[0, -1]
        assert (logits - truth).abs().max() <= 2e-5 * truth.abs().max()
""",
    "what is not a number stays in its row": """
model = made()
model.model.embed_tokens.weight.data[4] = float("nan")
asked = rows((30, 17, 5, 8, 28), 3)
asked[1] = Question("t", 1, [*asked[1].tokens[:9], 4, *asked[1].tokens[9:]])
found = []
for filler in (0, 5):
    for own in (asked, [asked[0], *asked[2:]]):
        with torch.inference_mode():
            computed = passes(model, None, filler)
            computed.read(own, len(own))
            last = torch.tensor([q.tokens[-1] for q in own])
            found.append(computed.step(last, torch.tensor([len(q.tokens) - 1 for q in own]), 29).clone())
assert found[0][1].isnan().all() and not found[1].isnan().any()
assert torch.equal(found[0][[0, 2, 3, 4]], found[1]) and torch.equal(found[1], found[3])
""",
    "other models are computed by transformers": """
model = made()
odd = adapted(model, 1, 4, ("lm_head",))
assert isinstance(passes(model, [odd], 0), ModulePasses)
assert isinstance(passes(made().to(torch.bfloat16), None, 0), ModulePasses)
assert isinstance(passes(made(attention_bias=True), None, 0), ModulePasses)
assert isinstance(passes(made(hidden_act="gelu"), None, 0), ModulePasses)
""",
    "no more copies of the weights than memory bears": """
model = made()
adapters = [adapted(model, seed, 4) for seed in range(5)]
size, kept, seen = llama.copied(model), groups.COPIES, []
assert size == sum(model.get_submodule(path).weight.nbytes for path in adapted(model, 0, 1, form.LINEARS).a)
class Spy(groups.Batch):
    def __init__(self, model, adapters, asked, rules):
        seen.append(len(asked))
        super().__init__(model, adapters, asked, rules)
kept_batch, groups.Batch = groups.Batch, Spy
for groups.COPIES in (kept, 2 * size, 1):
    members = [groups.Member(adapter, rows((9, 8, 7, 6), 4)) for adapter in adapters]
    list(groups.answers(model, members, groups.Rules(3, frozenset({4}), 0), groups.footprint(model), 8))
groups.COPIES = size
members = [groups.Member(adapter, rows((9, 8, 7, 6), 4)) for adapter in adapters]
list(groups.answers(model, members, groups.Rules(3, frozenset({4}), 0, by_modules=True), groups.footprint(model), 8))
groups.COPIES, groups.Batch = kept, kept_batch
assert seen == [5, 2, 2, 1, 1, 1, 1, 1, 1, 5], seen
""",
    "the likeliest token is the first of the likeliest": """
logits = torch.tensor([[0.0, 2.0, 2.0], [1.0, float("nan"), 3.0], [3.0, 1.0, 2.0]])
assert best(logits).tolist() == logits.argmax(-1).tolist() == [1, 1, 0]
assert best(logits.to(torch.bfloat16)).tolist() == [1, 1, 0]
""",
}


@pytest.fixture(scope="module")
def outcome(run_apart: Callable[..., dict[str, str]]) -> dict[str, str]:
    return run_apart(PREAMBLE, CASES)


@pytest.mark.parametrize("case", CASES)
def test_written_out(outcome: dict[str, str], case: str) -> None:
    assert outcome[case] == "", outcome[case]
