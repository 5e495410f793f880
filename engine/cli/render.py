"""Every table and line that a person reads, and the JSON that machines read. Data goes to stdout, the rest to stderr."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from decimal import Decimal

import click
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

from analysis import wording

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
SMALL = 1e-3
UNBOUNDED = 10_000
FOLD = 8
"""A column of text may be folded down to this width."""


def console(*, err: bool = False) -> Console:
    """Return a console that honours NO_COLOR and neither highlights nor interprets text on its own."""
    made = Console(stderr=err, highlight=False, markup=False, emoji=False)
    if not made.is_terminal:
        made.width = UNBOUNDED  # a pipe or a file has no width to wrap at
    return made


def safe(value: object) -> str:
    """Return a value as text without control characters: model text must not drive the terminal."""
    return CONTROL.sub(
        "\N{REPLACEMENT CHARACTER}", str(value).replace("\r", "").replace("\n", " ⏎ ").replace("\t", " ")
    )


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], *, numeric: Sequence[str] = (), out: Console | None = None
) -> None:
    """Print a table; columns named in `numeric` are right-aligned.

    Nothing is ever cut: where the terminal is too narrow even for folded names, each row becomes a block of lines.
    """
    out = out or console()
    texts = [[safe(cell(value)) for value in row] for row in rows]
    entries = list(zip(*texts, strict=True)) or [()] * len(columns)
    folded = [name.replace("_", "_\n") for name in columns]
    for heads, gap in ((list(columns), 2), (folded, 2), (folded, 1)):
        ranges = [
            _widths(head, column, foldable=name not in numeric)
            for name, head, column in zip(columns, heads, entries, strict=True)
        ]
        spare = out.width - sum(least + gap for least, _ in ranges)  # Rich counts a gap behind the last one too
        if spare < 0:
            continue
        made = Table(box=None, pad_edge=False, padding=(0, gap, 0, 0), header_style="bold")
        for name, head, (least, whole) in zip(columns, heads, ranges, strict=True):
            width = min(whole, least + spare)
            spare -= width - least
            made.add_column(head, justify="right" if name in numeric else "left", overflow="fold", width=width)
        for row in texts:
            made.add_row(*row)
        out.print(made)
        return
    margin = max(map(len, columns), default=0)
    for row in texts:
        for name, text in zip(columns, row, strict=True):
            out.print(f"{name:{margin}}  {text}", soft_wrap=True)
        out.print()


def _widths(head: str, column: Iterable[str], *, foldable: bool) -> tuple[int, int]:
    """Return the least width of a column, and the one at which nothing in it is folded."""
    words = max(map(cell_len, head.split("\n")))
    values = max(map(cell_len, column), default=0)
    return max(words, min(values, FOLD) if foldable else values), max(words, values)


def cell(value: object) -> str:
    """Return a value as a table shows it: nothing as a dash, numbers with at most four digits after the point."""
    match value:
        case None:
            return "–"
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.4g}" if abs(value) < SMALL else f"{value:,.4f}".rstrip("0").rstrip(".")
        case Decimal():  # dollars, or a sum of counts, which is wider than 64 bits in DuckDB
            return f"{int(value):,}" if value.as_tuple().exponent == 0 else money(value)
        case int():
            return f"{value:,}"
        case _:
            return str(value)


def money(value: Decimal | None) -> str:
    """Return US dollars: cents from a dollar on, two significant digits below; `unknown` for None."""
    return "unknown" if value is None else wording.money(value)


def json_text(value: object) -> str:
    """Return a value as a JSON document for people and programs; what could drive a terminal is escaped."""
    text = json.dumps(value, indent=1, ensure_ascii=False, default=str)
    return CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def print_json(value: object) -> None:
    """Print one JSON document on stdout."""
    click.echo(json_text(value))
