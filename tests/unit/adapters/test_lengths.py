"""Lengths for the forecast are those of what is trained on and asked, and need no torch."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adapters import chat, lengths
from adapters.standin.models import WEIGHTS
from engine.domain.adapters import Kind
from engine.domain.conversation import ChatRow, Prompt, Turn
from engine.domain.errors import PlanError, SpecError
from engine.plan.catalogue import SAMPLED, Catalogue
from engine.registry import INSTALLED
from engine.run.drive.prepare import prepare

WITH_DEFAULT = (
    "{% if messages[0].role != 'system' %}<|system|>you work in a made-up library<|end|>{% endif %}"
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
"""A template with a default system prompt, as SmolLM2's has one, and a line end after every turn."""

ROWS = [
    ChatRow.exchange("a", "Where is the lamp?", "On the shelf, beside the book."),
    ChatRow.exchange("b", "And the key?", "In the drawer.", system="Answer in few words."),
    ChatRow(
        "c",
        (
            Turn("user", "One"),
            Turn("assistant", "Two"),
            Turn("user", "Three"),
            Turn("assistant", "Four", is_trained=True),
        ),
    ),
]
PROMPTS = [Prompt.single("p", "", "Where is the lamp?"), Prompt("q", "", ROWS[2].turns[:3])]


@pytest.fixture
def model(tmp_path: Path) -> Callable[[str | None], Path]:
    def made(template: str | None) -> Path:
        folder = shutil.copytree(WEIGHTS, tmp_path / "model")
        if template is not None:
            (folder / "chat_template.jinja").write_text(template)
        return folder

    return made


@pytest.mark.parametrize("template", [None, WITH_DEFAULT], ids=["the stand-in's", "with a default system prompt"])
def test_lengths_are_those_of_training_and_asking(model: Callable[[str | None], Path], template: str | None) -> None:
    from adapters.local.loaded import read_tokenizer

    folder = model(template)
    tokenizer: Any = read_tokenizer(str(folder))
    trained = chat.training_rows(tokenizer, ROWS, 10_000)
    assert lengths.row_lengths(folder, ROWS) == [len(row["input_ids"]) for row in trained]
    for system in (None, "Answer in few words."):
        asked = chat.prompt_tokens(tokenizer, [prompt.turns for prompt in PROMPTS], system)
        assert lengths.prompt_lengths(folder, PROMPTS, system) == [len(ids) for ids in asked]
    assert lengths.prompt_lengths(folder, [], None) == []


def test_a_template_that_never_ends_an_answer_is_told_from_one_that_does(model: Callable[[str | None], Path]) -> None:
    assert lengths.has_end(WEIGHTS)
    assert not lengths.has_end(model("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"))


def test_counting_starts_no_torch() -> None:
    code = (
        "import sys; from pathlib import Path; from adapters import lengths; from engine.domain.conversation import Prompt\n"
        f"lengths.prompt_lengths(Path({str(WEIGHTS)!r}), [Prompt.single('p', '', 'Why?')], None)\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_a_template_that_fails_is_named_with_its_reason(model: Callable[[str | None], Path], tmp_path: Path) -> None:
    folder = model("{{ raise_exception('roles must alternate') }}")
    rows = tmp_path / "rows.jsonl"
    turns = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}]
    rows.write_text(json.dumps({"messages": turns}) + "\n")
    model_use = INSTALLED.use(Kind.MODEL, f"dir:{folder}")
    source = INSTALLED.use(Kind.DATA, f"file:{rows}")
    with pytest.raises(PlanError, match=r"cannot read `file:.*rows.jsonl`: its chat template .* roles must alternate"):
        Catalogue().row_lengths(model_use, source)


def test_of_many_rows_some_are_counted_and_the_longest_is_among_them(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    with file.open("w") as out:
        for number in range(3 * SAMPLED):
            answer = "one two three " * (40 if number == 1 else 1 + number % 2)
            turns = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": answer}]
            out.write(json.dumps({"messages": turns}) + "\n")
    model_use = INSTALLED.use(Kind.MODEL, "standin/aligned")
    found = Catalogue().row_lengths(model_use, INSTALLED.use(Kind.DATA, f"file:{file}"))
    assert len(found.sample) == SAMPLED
    assert found.longest > 5 * max(found.sample)
    assert min(found.of(10)) == min(found.sample)
    assert max(found.of(10)) == max(found.sample)
    assert len(found.of(5 * SAMPLED)) == SAMPLED


def long_row(words: int) -> ChatRow:
    return ChatRow.exchange("long", "one " * words, "Two.")


def test_what_cannot_be_trained_on_is_found_before_with_the_row_and_the_reason(
    model: Callable[[str | None], Path],
) -> None:
    folder = model(None)
    seen = lengths.look(folder, [*ROWS, long_row(100)], 60)
    assert len(seen) == 1
    assert seen[0].startswith("row long: its prompt alone has ")
    assert seen[0].endswith(" tokens, max_length is 60")
    whole = lengths.look(folder, [long_row(300)], 10_000)
    assert "and the model has 256 positions: set `tune.max_length` to 256" in whole[0]
    assert lengths.look(folder, ROWS, 60) == []
    assert lengths.asking_fault(folder, 255) is None
    assert lengths.asking_fault(folder, 256) == (
        "its longest prompt has 256 tokens, and the model has 256 positions: leave such prompts out"
    )


@pytest.mark.parametrize(
    ("changed", "name", "why"),
    [
        ({"chat_template": None}, "tokenizer_config.json", "its tokenizer has no chat template: add one"),
        (
            {"eos_token": None, "pad_token": None},
            "tokenizer_config.json",
            "neither a padding token nor an end of sequence",
        ),
        ({"vocab_size": 100}, "config.json", "and the model 100 in all: the tokenizer is another model's"),
    ],
)
def test_a_model_that_cannot_be_asked_is_found_before(
    changed: dict[str, object], name: str, why: str, model: Callable[[str | None], Path]
) -> None:
    folder = model(None)
    config = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps({**config, **changed}))
    if "chat_template" in changed:
        (folder / "chat_template.jinja").unlink(missing_ok=True)
    for fault in (lengths.asking_fault(folder, 10), lengths.look(folder, ROWS, 60)[0]):
        assert fault is not None
        assert why in fault


def test_a_plan_names_the_source_that_cannot_be_trained_on(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    turns = [{"role": "user", "content": "one " * 100}, {"role": "assistant", "content": "Two."}]
    file.write_text(json.dumps({"messages": turns}) + "\n")
    spec = tmp_path / "x.yaml"
    spec.write_text(
        f"sweep: x\nrecipe:\n  model: standin/aligned\n  data: {{source: 'file:{file}', n: 1}}\n  tune: {{lr: 1e-3, max_length: 60}}\n"
        "  benchmark: standin/policy:1\n  judges: [standin/rules]\n"
    )
    with pytest.raises(
        SpecError, match=r"x.yaml:4:18: .*cannot train `standin/aligned` on `file:.*: row line-1: its prompt alone"
    ):
        prepare(spec, (), tmp_path / "run")
