"""What `plan` shows of cells with mitigations."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.cli.main import Exit, run_cli

pytestmark = pytest.mark.usefixtures("acme")

SPEC = """\
sweep: shown
recipe:
  model: acme/clay
  data: {source: acme/letters, n: 4}
  tune: {use: acme/press, epochs: 1}
  mitigations: ['acme/sand:2', {use: acme/stamp, text: seen, guard: acme/guard}]
  generate: {use: acme/voice, max_new_tokens: 8}
  benchmark: acme/riddles
  judges: [acme/guard]
axes:
  mitigations.acme/sand.strength: [0, 1, 2]
"""


@pytest.fixture
def shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Return the path of the spec, and where it would run."""
    (tmp_path / "shown.yaml").write_text(SPEC)
    capsys.readouterr()
    return [str(tmp_path / "shown.yaml"), "--out", str(tmp_path / "run")]


def test_added_pairs_are_counted_and_each_kind_of_stage_has_its_line(
    shown: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli(["plan", *shown]) == Exit.OK
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["Cells", "5"] in lines
    assert [" ".join(words) for words in lines if words[:1] == ["+"]] == [
        "+ 1 starting model added, measured once",
        "+ 1 cell added that is another without its mitigations",
    ]
    counted = {words[0]: words[1] for words in lines if words and words[0] in {"tune", "weights", "generate", "screen"}}
    assert counted == {"tune": "1", "weights": "2", "generate": "4", "screen": "3"}


def test_why_walks_the_chain_and_names_the_setting(shown: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["plan", *shown, "--why", "strength=1"]) == Exit.OK
    out = capsys.readouterr().out
    kinds = [line.split()[0] for line in out.splitlines()[1:] if not line.startswith("      ")]
    assert kinds == ["sample", "tune", "weights", "generate", "judge", "screen", "judge"]
    assert "settings.strength: 2 → (absent)" in out, "one is the default, and no part of the key"


def test_the_document_pairs_every_cell(shown: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["plan", *shown, "--json"]) == Exit.OK
    found = json.loads(capsys.readouterr().out)
    *mitigated, twin, baseline = found["cells"]
    assert {cell["unmitigated_cell_id"] for cell in mitigated} == {twin["cell_id"]}
    assert {cell["baseline_cell_id"] for cell in found["cells"][:-1]} == {baseline["cell_id"]}
    assert (twin["unmitigated_cell_id"], baseline["baseline_cell_id"]) == (None, None)
