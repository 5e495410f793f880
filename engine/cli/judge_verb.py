"""`dosimeter judge-bench`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from engine.cli import options
from engine.cli.render import console, print_json, print_table, safe

if TYPE_CHECKING:
    from analysis.bench import Bench, Row
    from analysis.estimates.shares import Estimate


@click.command("judge-bench")
@click.argument("labels", type=click.Path(path_type=Path))
@click.option("--human", default="human", show_default=True, help="Column of people's labels, which count as true.")
@click.option("--judge", "judges", multiple=True, required=True, help="Column of a judge's labels; may be repeated.")
@click.option(
    "--positive", multiple=True, required=True, help="Label that counts as positive, such as full compliance."
)
@click.option("--by", multiple=True, help="Column that tells groups of replies apart, such as the model's name.")
@click.option("--cluster", default="", help="Column that names the prompt: replies to one prompt are alike.")
@click.option(
    "--ordered", default="", help="All labels from the least to the most, with commas, where they are a scale."
)
@options.AS_JSON
def command(**chosen: Any) -> None:
    """Say how wrong judges are: their labels beside those of people, from a CSV or JSON Lines file, one row for each reply.

    A label that nobody among people uses is an unread verdict. All intervals are of 95%, and know which replies are to one prompt.

    \b
    Examples:
      dosimeter judge-bench labels.csv --judge guard --positive harmful --cluster prompt_id
      dosimeter judge-bench labels.csv --judge gpt4 --judge keywords --positive comply --by model --by safe
    """
    from analysis.bench import Asked, bench, read_labels

    scale = tuple(filter(None, (label.strip() for label in chosen["ordered"].split(","))))
    found = bench(
        read_labels(chosen["labels"]),
        Asked(
            chosen["human"],
            tuple(dict.fromkeys(chosen["judges"])),
            frozenset(chosen["positive"]),
            tuple(dict.fromkeys(chosen["by"])),
            chosen["cluster"],
            scale,
        ),
    )
    if chosen["as_json"]:
        sentences = [transfer.sentence for transfer in found.transfers]
        print_json({"schema": "dosimeter.judge-bench/1"} | asdict(found) | {"sentences": sentences})
    else:
        _print(found, chosen["by"])


def _print(found: Bench, by: Iterable[str]) -> None:
    columns = (*dict.fromkeys(by), "judge", "missed", "cleared", "unread", "sensitivity", "specificity")
    print_table(columns, map(_line, found.rows), numeric=columns[-5:])
    out = console()
    out.print()
    for transfer in found.transfers:
        out.print(safe(transfer.sentence))
    if found.transfers:
        out.print()
    rows = (
        (f"{one.first}, {one.second}", one.kappa.n, _interval(one.kappa), _interval(one.alpha))
        for one in found.agreements
    )
    print_table(("who", "replies", "Cohen's kappa", "Krippendorff's alpha"), rows, numeric=("replies",))
    console(err=True).print(f"{found.replies:,} replies", style="dim")


def _line(row: Row) -> tuple[object, ...]:
    return (
        *row.group.values(),
        row.judge,
        f"{row.missed}/{row.positives}",
        f"{row.cleared}/{row.negatives}",
        row.unread,
        _interval(row.sensitivity),
        _interval(row.specificity),
    )


def _interval(found: Estimate) -> str | None:
    if found.value is None:
        return None
    ends = "" if found.lo is None or found.hi is None else f" [{found.lo:.2f}, {found.hi:.2f}]"
    return f"{found.value:.2f}{ends}"
