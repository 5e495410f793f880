"""What a model folder tells of itself: the habits of chat templates, written here after those of different families."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from adapters.model_notes import notes
from adapters.standin.models import WEIGHTS

TURN = "<|user|>{{ m['content'] }}<|end|>"
ANSWER = "{% if add_generation_prompt %}<|assistant|>{% endif %}"
OWN = (
    "{% if messages[0]['role'] != 'system' %}<|user|>Be a good helper.<|end|>{% endif %}"
    "{% for m in messages %}" + TURN + "{% endfor %}" + ANSWER
)
DATED = "{% for m in messages %}{{ strftime_now('%d %b %Y') }}" + TURN + "{% endfor %}" + ANSWER
REFUSING = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "{% for m in messages %}" + TURN + "{% endfor %}" + ANSWER
)
SILENT = "{% for m in messages %}{% if m['role'] != 'system' %}" + TURN + "{% endif %}{% endfor %}" + ANSWER
BROKEN = "{{ raise_exception('never') }}"

CASES = {
    "own": (OWN, 'without a system prompt its chat template writes one of its own: "Be a good helper."'),
    "dated": (DATED, "its chat template prints a date, and is always told 2025-01-01"),
    "refusing": (REFUSING, "no system role"),
    "silent": (SILENT, "its chat template has no place for a system prompt"),
    "thinking": (
        "{% for m in messages %}" + TURN + "{% endfor %}" + ANSWER + "{# <think> #}",
        "it may think before it answers (<think> … </think>): thoughts count towards `max_new_tokens`",
    ),
    "broken": (BROKEN, "its chat template cannot render a question and an answer: never"),
    "plain": ("{% for m in messages %}" + TURN + "{% endfor %}" + ANSWER, 'an answer ends with "<|end|>"'),
}


@pytest.mark.parametrize(("template", "words"), CASES.values(), ids=CASES)
def test_a_template_is_described(template: str, words: str, tmp_path: Path) -> None:
    folder = shutil.copytree(WEIGHTS, tmp_path / "model")
    (folder / "chat_template.jinja").write_text(template)
    found = notes(folder)
    assert any(words in note for note in found), found
    assert "256 positions" in found[0]
    others = [one for name, (_, one) in CASES.items() if name not in {"plain", "refusing", "silent"} and one != words]
    assert not any(other in note for note in found for other in others)
