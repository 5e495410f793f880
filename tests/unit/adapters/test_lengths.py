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
from engine.domain.errors import PlanError
from engine.plan.catalogue import SAMPLED, Catalogue
from engine.registry import INSTALLED

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
