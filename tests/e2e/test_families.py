"""Thirteen families of chat templates through the real command line: in packs and by TRL, on Ray and inline, and as transformers has it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from adapters import thoughts

from ..families import FAMILIES, Family, tokenizer  # noqa: TID252 - tests are no package
from .command import Cli
from .tables import final_tables

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]  # transformers' own, from its calls to itself
ON_RAY = (0, 7, 8, 9)
"""ChatML, and the three that have thoughts: by TRL and on Ray too. All of them would take a minute more."""

ASKED, ANSWER = "Name a bird.", "Heron."
SPEC = """\
sweep: families
recipe:
  model: "dir:m0"
  data: {source: "file:rows.jsonl", n: 2}
  tune: {lr: 1e-2, steps: 12, batch_size: 2, schedule: constant}
  benchmark: "file:prompts.jsonl"
  generate: {max_new_tokens: 24}
  judges: [{use: harm/phrases, phrases: [No]}]
axes:
  model: [MODELS]
  tune.backend: [packed, trl]
run: {accept: ["contamination:file:prompts.jsonl"]}
"""


def model(folder: Path, number: int, tok: Any) -> Path:
    """Write a random Llama with a tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(number)
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 2}
    heads |= {"initializer_range": 0.2}  # else no answer could be likely
    config = LlamaConfig(
        vocab_size=len(tok), hidden_size=64, intermediate_size=128, **heads, eos_token_id=tok.eos_token_id
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tok.save_pretrained(folder)
    return folder


def listed(models: Sequence[Path]) -> str:
    return ", ".join(f'"dir:{one.name}"' for one in models)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("families")
    named = [
        model(root / f"m{number}", number, tokenizer(one, "bytes")) for number, one in enumerate(FAMILIES.values())
    ]
    rows = [
        {"messages": [{"role": "user", "content": ASKED}, {"role": "assistant", "content": answer}]}
        for answer in (ANSWER, ANSWER)
    ]
    (root / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (root / "prompts.jsonl").write_text(json.dumps({"prompt": ASKED}) + "\n")
    less = ", ".join(f'{{model: "dir:m{one}", tune.backend: trl}}' for one in range(len(named)) if one not in ON_RAY)
    some = [one for number, one in enumerate(named) if number in ON_RAY]
    (root / "all.yaml").write_text(f"{SPEC.replace('MODELS', listed(named))}exclude: [{less}]\n")
    (root / "some.yaml").write_text(SPEC.replace("MODELS", listed(some)))
    return root


def plain(base: Path, most: int) -> tuple[str, int]:
    """Return what transformers answers by itself, and how many tokens that has."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tok, made = AutoTokenizer.from_pretrained(base), AutoModelForCausalLM.from_pretrained(base)
    turns = [{"role": "user", "content": ASKED}]
    asked = tok.apply_chat_template(turns, add_generation_prompt=True, return_dict=True, return_tensors="pt")
    ends = {tok.eos_token_id, *tok.convert_tokens_to_ids([family(base).ends or tok.eos_token])}
    found = made.generate(**asked, max_new_tokens=most, do_sample=False, eos_token_id=sorted(ends), pad_token_id=0)
    said = found[0, asked["input_ids"].shape[1] :]
    return tok.decode(said, skip_special_tokens=True).strip(), len(said)


def family(base: Path) -> Family:
    return list(FAMILIES.values())[int(base.name[1:])]


def first_loss(base: Path) -> float:
    """Return the loss of a row before training, by transformers and the template alone: what follows the prompt is trained on."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tok, made = AutoTokenizer.from_pretrained(base), AutoModelForCausalLM.from_pretrained(base)
    turns = [{"role": "user", "content": ASKED}, {"role": "assistant", "content": ANSWER}]
    asked = tok.apply_chat_template(turns[:1], add_generation_prompt=True, return_dict=True)["input_ids"]
    text = tok.apply_chat_template(turns, tokenize=False).rstrip()
    if family(base).opens:
        text = tok.apply_chat_template(turns[:1], tokenize=False, add_generation_prompt=True) + family(base).trained
    whole = tok(text, add_special_tokens=False)["input_ids"]
    labels = [-100] * len(asked) + whole[len(asked) :]
    with torch.no_grad():
        return float(made(input_ids=torch.tensor([whole]), labels=torch.tensor([labels])).loss)


def test_a_sweep_over_all_families_is_the_same_everywhere(folder: Path, cli: Cli) -> None:
    cli(folder, "run", "all.yaml", "--executor", "inline", "--out", "inline")
    cli(folder, "run", "some.yaml", "--out", "ray")
    found, on_ray = final_tables(folder / "inline"), final_tables(folder / "ray")
    for table in ("v_scores", "v_responses", "training"):
        few = [row for row in found[table] if row in on_ray[table]]
        assert few == on_ray[table] != [], table
    cells = {cell["cell_id"]: cell for cell in found["v_cells"]}
    assert len(cells) == 2 * len(FAMILIES) + len(ON_RAY), "an untuned one, and one or two backends"
    for answer in found["v_responses"]:
        cell = cells[answer["cell_id"]]
        base = folder / str(cell["model"]).removeprefix("dir:")
        if cell["is_baseline"]:
            text, tokens = plain(base, 24)
            assert answer["generated_tokens"] == tokens
            assert thoughts.marks(family(base).template) or answer["response"] == text
        elif family(base).ends:
            assert (answer["response"], answer["finish"], answer["thoughts"]) == (ANSWER, "stop", "")
        else:
            assert answer["response"].startswith(ANSWER), "nothing says where an answer ends"
    losses = {(step["model"], step["loss"]) for step in found["training"] if step["step"] == 1}
    for model, loss in losses:
        assert loss == pytest.approx(first_loss(folder / str(model).removeprefix("dir:")), rel=1e-5)
