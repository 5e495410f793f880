"""What `query` prints: tables that fit, and nothing that drives a terminal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from engine.cli import render
from engine.cli.main import Exit, run_cli


def asked(run: Path, capsys: pytest.CaptureFixture[str], *arguments: str, code: int = Exit.OK) -> str:
    capsys.readouterr()
    assert run_cli(["query", *arguments, "--run", str(run)]) == code
    said = capsys.readouterr()
    return said.err if code else said.out


def test_the_dose_table_fits_100_columns_and_says_once_what_all_rows_share(
    sweeps: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(render, "UNBOUNDED", 100)
    run = sweeps.decay().write(tmp_path)
    first, *table = asked(run, capsys, "dose").splitlines()
    assert first == "All rows: model standin/aligned, mitigation none, steps –, lr_multiplier –"
    assert max(map(len, table)) <= 100
    assert table[0].split()[-2:] == ["rate_", "sd_"], "a table, not a block of lines for each row"
    head = asked(run, capsys, "--sql", "SELECT model, label FROM v_cells").splitlines()[0]
    assert head.split() == ["model", "label"], "what a person asks for by name is shown"


def test_empty_sql_is_said_to_be_empty(small_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "the query is empty" in asked(small_run, capsys, "--sql", "", code=Exit.USAGE)


def test_columns_of_one_name_are_told_apart(small_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = asked(small_run, capsys, "--json", "--sql", "SELECT 1 AS a, 2 AS a, 3 AS b, 4 AS a_2")
    assert json.loads(said) == [{"a": 1, "a_2": 2, "b": 3, "a_2_2": 4}]


@pytest.mark.parametrize("how", [(), ("--json",), ("--csv",)])
def test_a_value_that_python_lacks_is_said(
    how: tuple[str, ...], small_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = asked(small_run, capsys, "--sql", "SELECT DATE '99999-01-01' AS day", *how, code=Exit.USAGE)
    assert "a value of the answer cannot be shown" in said
    assert "x::VARCHAR" in said


def test_json_escapes_what_drives_a_terminal(small_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = asked(small_run, capsys, "--json", "--sql", "SELECT 'a' || chr(155) || chr(8238) || 'ü' AS text")
    assert "\\u009b\\u202eü" in said
    assert json.loads(said) == [{"text": "a\x9b\u202eü"}]
