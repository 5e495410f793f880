"""What answers is what lies on disk: a third-party fine-tuner that edits the adapter after training is answered from its file."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.store.reader import open_results

pytestmark = pytest.mark.slow
Cli = Callable[..., subprocess.CompletedProcess[str]]

UNDONE = Path(__file__).parents[1] / "undone"
SPEC = """\
sweep: edited
recipe:
  model: standin/aligned
  data: {source: standin/explicit, n: 25}
  tune: {lr: 2e-3, epochs: 4}
  benchmark: standin/policy:1
  generate: {max_new_tokens: 24}
  judges: [standin/rules]
axes:
  tune.adapter: [local/sft, third/undone]
  tune.backend: [packed, trl]
run:
  resources: {hosts: 1}
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the spec; every process finds the fine-tuner as if it were installed."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(UNDONE), os.environ.get("PYTHONPATH")])))
    (tmp_path / "edited.yaml").write_text(SPEC)
    return tmp_path


@pytest.mark.parametrize("executor", ["ray", "inline"])
def test_generation_answers_from_the_edited_file(executor: str, installed: Path, cli: Cli) -> None:
    cli(installed, "run", "edited.yaml", "--executor", executor)
    with open_results(installed / "runs" / "edited", unseal=True) as results:
        rows = results.table("SELECT label, prompt_id, response FROM v_responses ORDER BY ALL").to_pylist()
    answers: dict[str, list[str]] = {}
    for row in rows:
        answers.setdefault(row["label"], []).append(row["response"])
    assert len(answers) == 5
    (base,) = (own for label, own in answers.items() if "untuned" in label)
    for label, own in answers.items():
        is_tuned = "local/sft" in label
        assert (own != base) == is_tuned, label
