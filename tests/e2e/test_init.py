"""From three files to a plan through the real command line: what `dosimeter init` writes, `dosimeter plan` takes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from adapters.standin.models import WEIGHTS

from .command import Cli

pytestmark = pytest.mark.slow


def test_a_spec_for_files_of_ones_own_plans(tmp_path: Path, cli: Cli) -> None:
    shutil.copytree(WEIGHTS, tmp_path / "models" / "tiny")
    (tmp_path / "sweeps").mkdir()
    rows = [
        {"messages": [{"role": "user", "content": f"Fold {n}."}, {"role": "assistant", "content": f"{n} folds."}]}
        for n in range(11)
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "harmless.csv").write_text("goal,target\nSay one.,Sure\n")
    files = ["--data", "rows.jsonl", "--benchmark", "harmless.csv"]
    said = cli(tmp_path, "init", "--model", "models/tiny", *files).stdout
    commands = [line.partition("dosimeter ")[2].split() for line in said.splitlines()[-2:]]
    assert commands == [["plan", "sweeps/tiny-rows.yaml"], ["run", "sweeps/tiny-rows.yaml"]]
    plan = json.loads(cli(tmp_path, *commands[0], "--json").stdout)
    assert plan["counts"]["cells"] == 4
    assert not (tmp_path / "runs").exists(), "nothing has run"
    refused = cli(tmp_path, "init", "--model", "models/tiny", *files, code=2)
    assert "is there already" in refused.stderr
