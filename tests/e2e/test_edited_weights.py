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

UNDONE = '''
"""A fine-tuner that trains as local/sft does, and then takes everything back: B of every module becomes zero."""

from safetensors.torch import load_file, save_file

from adapters.local.tune import LocalFineTuner


class Undone(LocalFineTuner):
    def fine_tune(self, runs, context):
        folders = {point.key: point.folder for run in runs for point in run.checkpoints}
        for key, tuned in super().fine_tune(runs, context):
            path = folders[key] / "adapter_model.safetensors"
            weights = load_file(path)
            save_file({name: weight * ("lora_A" in name) for name, weight in weights.items()}, path, {"format": "pt"})
            yield key, tuned
'''
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
    """A folder with the spec, and the fine-tuner installed for every process."""
    site, info = tmp_path / "site", tmp_path / "site" / "undone-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "undone.py").write_text(UNDONE)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: undone\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[dosimeter.tuners]\nthird/undone = undone:Undone\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(site), os.environ.get("PYTHONPATH")])))
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
