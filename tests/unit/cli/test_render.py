"""Tables on terminals of any width: nothing is ever cut."""

from __future__ import annotations

import io
from collections import Counter
from decimal import Decimal

import pytest
from rich.console import Console

from engine.cli.render import cell, print_table, safe

COLUMNS = ("model", "n_examples", "rate", "label")
ROWS = [("standin/aligned", 100, 0.1487, "source=standin/explicit n=100"), ("dir:/models/llama", 10, 0.002, "n=10")]
VALUES = ("100", "0.1487", "0.002", "n=10")


@pytest.mark.parametrize("width", [20, 40, 60, 80, 120, 10_000])
def test_no_number_and_no_name_is_lost(width: int) -> None:
    out = Console(file=io.StringIO(), width=width, highlight=False, markup=False)
    print_table(COLUMNS, ROWS, numeric=("n_examples", "rate"), out=out)
    text = out.file.getvalue()
    assert all(value in text for value in VALUES)
    written = Counter("".join(str(value) for row in ROWS for value in row).replace(" ", ""))
    assert written <= Counter("".join(text.split())), "a character of a cell is missing"


@pytest.mark.parametrize("width", range(14, 40))
def test_no_head_is_cut(width: int) -> None:
    out = Console(file=io.StringIO(), width=width, highlight=False, markup=False)
    print_table(("name_of_it", "n_examples", "rate"), [("a", 1, 0.5)], numeric=("n_examples", "rate"), out=out)
    assert Counter("name_of_it n_examples rate".replace(" ", "")) <= Counter(out.file.getvalue())


def test_model_text_cannot_drive_the_terminal() -> None:
    assert safe("a\x1b[2J\nb\u202ec") == "a\ufffd[2J ⏎ b\ufffdc"


def test_a_sum_of_counts_is_not_money() -> None:
    assert [cell(Decimal(text)) for text in ("1440", "2.000000000", "0.004200000")] == ["1,440", "$2.00", "$0.0042"]
