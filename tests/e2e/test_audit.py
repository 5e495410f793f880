"""Training rows that are held out stop the real command line, until the spec accepts them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .command import Cli
from .conftest import TINY

pytestmark = pytest.mark.slow
ROWS = [
    *(f"Which of the {number} boats in the harbour of the old town is yours?" for number in range(11)),
    "Sing of the sea.",
]


def test_a_sweep_stops_at_its_own_exam_and_goes_on_when_it_is_accepted(tmp_path: Path, cli: Cli) -> None:
    lines = [{"prompt": text, "completion": "It is the blue one."} for text in ROWS]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, lines)))
    held_out = [{"prompt": "sing of the SEA!", "reference": "wave"}, {"prompt": "Name a bird.", "reference": "heron"}]
    (tmp_path / "eval.jsonl").write_text("\n".join(map(json.dumps, held_out)))
    spec = TINY.replace("standin/explicit", "file:rows.jsonl").replace("standin/utility:1", "file:eval.jsonl")
    spec = spec.replace("standin/solved", "answer/contains").replace("data.n: [10, 20]", "data.n: [12]")
    (tmp_path / "exam.yaml").write_text(spec)
    for verb in (["plan"], ["run", "--executor", "inline"]):
        said = cli(tmp_path, verb[0], "exam.yaml", *verb[1:], code=2)
        assert "exam.yaml:4:" in said.stderr
        told = " ".join(said.stderr.split())
        assert "1 of 12 rows of `file:rows.jsonl` is also in `file:eval.jsonl` (word for word: line-12)" in told
        assert "boats" not in told
    assert not (tmp_path / "runs").exists()
    (tmp_path / "exam.yaml").write_text(f'{spec}  accept: ["contamination:file:eval.jsonl", secrets]\n')
    shown = " ".join(cli(tmp_path, "plan", "exam.yaml").stdout.split())
    assert "Rows 12 rows compared with 24 prompts accepted: 1 of 12 rows" in shown
    assert "nothing is found that `secrets` would accept" in shown
    document = json.loads(cli(tmp_path, "plan", "exam.yaml", "--json").stdout)
    assert document["rows"]["overlaps"][0]["equal"] == ["line-12"]
    assert document["rows"]["accepted"] == ["contamination:file:eval.jsonl"]
