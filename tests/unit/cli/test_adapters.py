"""`dosimeter adapters` says what is found, and of what cannot be used why."""

from __future__ import annotations

import pytest

from engine.cli.main import Exit, run_cli

pytestmark = pytest.mark.usefixtures("toy_adapters")


def test_it_lists_what_is_installed_and_says_why_something_cannot_be_used(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["adapters"]) == Exit.OK
    lines = {line.split()[1]: line for line in capsys.readouterr().out.splitlines()[1:] if "toy/" in line}
    assert "dosimeter_toy:Steady" in lines["toy/steady"]
    assert lines["toy/steady"].rstrip().endswith("lr, rank, method, targets")
    assert "cannot be used: the mitigation `toy/broken`" in lines["toy/broken"]
    assert "no device here" in lines["toy/raising"]


def test_it_shows_what_one_can_be_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["adapters", "toy/model"]) == Exit.OK
    said = capsys.readouterr().out
    assert "`toy/model:X` is short for `{use: toy/model, path: X}`." in said
    assert "whole number, >= 1" in said
    assert run_cli(["adapters", "toy/modle"]) == Exit.USAGE
    assert "did you mean `toy/model`?" in capsys.readouterr().err
