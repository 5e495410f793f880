"""`dosimeter query`."""

from __future__ import annotations

import csv
import io
import sys
from pathlib import Path
from typing import Any

import click
import pyarrow as pa

from analysis.query import ask, named_queries
from analysis.wording import besides, count
from engine.cli import options
from engine.cli.render import CONTROL, cell, console, print_json, print_table, safe
from engine.domain.errors import QueryError

FORMULA = ("=", "+", "-", "@", "\t", "\r")


@click.command("query")
@click.argument("name", required=False)
@options.RUN
@click.option("--sql", help="One SELECT of your own over the public views.")
@click.option("--list", "list_queries", is_flag=True, help="List the named queries.")
@click.option("--unseal", is_flag=True, help="Also give v_responses and v_verdicts, with the sealed texts.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0.1),
    default=60.0,
    show_default=True,
    help="Seconds after which the query is stopped.",
)
@options.AS_JSON
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
@click.option("--parquet", type=click.Path(path_type=Path), help="Write a Parquet file.")
def command(**chosen: Any) -> None:
    """Ask the results: a named query, or --sql over the public views. Read-only, and locked down.

    Works at any time, also while the run goes on. The views are documented in docs/reference/views.md.

    \b
    Examples:
      dosimeter query --list
      dosimeter query dose
      dosimeter query --sql "select data_source, n_examples, avg(harmfulness_rate) from v_cells group by all"
      dosimeter query --sql "from v_scores" --parquet scores.parquet
    """
    if chosen["list_queries"]:
        print_table(("query", "answers"), ((query.name, query.answers) for query in named_queries()))
        return
    name, sql = chosen["name"], chosen["sql"]
    if (name is None) == (sql is None):
        raise click.UsageError("give the name of a query (see --list), or --sql")
    answer = ask(
        options.run_directory(chosen["run_dir"]),
        name if sql is None else sql,
        unseal=chosen["unseal"],
        timeout_s=chosen["timeout"],
    )
    _deliver(answer, name, chosen)


def _deliver(answer: pa.Table, name: str | None, chosen: dict[str, Any]) -> None:
    if chosen["parquet"]:
        import pyarrow.parquet as pq

        pq.write_table(answer, chosen["parquet"])
        click.echo(f"wrote {answer.num_rows:,} rows to {chosen['parquet']}", err=True)
    elif chosen["as_json"]:
        print_json([dict(zip(answer.column_names, row, strict=True)) for row in zip(*_values(answer), strict=True)])
    elif chosen["as_csv"]:
        text = as_csv(answer)  # as it is for a program, and without what could drive a terminal for a person
        click.echo(CONTROL.sub("\N{REPLACEMENT CHARACTER}", text) if sys.stdout.isatty() else text, nl=False)
    else:
        _print(answer, is_named=name is not None)
        if name == "cost":
            _print_besides(answer)


def _print_besides(bill: pa.Table) -> None:
    """Say below the bill what a provider may have billed that is not in it."""
    rows = [row for row in bill.to_pylist() if row["possibly_billed_tokens"]]
    if rows:
        usd = [row["possibly_billed_usd"] for row in rows]
        possibly_billed = sum(row["possibly_billed_tokens"] for row in rows)
        console(err=True).print(f"and {besides(None if None in usd else sum(usd), possibly_billed)}")


def _print(answer: pa.Table, *, is_named: bool) -> None:
    """Print an answer; of a named query, what is the same in every row is said once, so that the table fits."""
    kinds = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal)
    numeric = [field.name for field in answer.schema if any(is_kind(field.type) for is_kind in kinds)]
    columns = dict(zip(answer.column_names, _values(answer), strict=True))
    same = {
        name: values[0]
        for name, values in columns.items()
        if is_named and len(values) > 1 and values.count(values[0]) == len(values)
    }
    if said := [f"{name} {cell(value)}" for name, value in same.items() if value != ""]:
        console().print(safe(f"All rows: {', '.join(said)}"), style="dim", soft_wrap=True)
    shown = {name: values for name, values in columns.items() if name not in same} or columns
    print_table(tuple(shown), zip(*shown.values(), strict=True), numeric=numeric)
    console(err=True).print(count(answer.num_rows, "row"), style="dim")


def as_csv(answer: pa.Table) -> str:
    """Return a table as CSV; text that a spreadsheet would take for a formula gets an apostrophe in front."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(answer.column_names)
    for row in zip(*_values(answer), strict=True):
        writer.writerow([_defused(value) for value in row])
    return out.getvalue()


def _values(answer: pa.Table) -> list[list[Any]]:
    """Return the columns as Python has them.

    Raises:
        QueryError: Python has no such value, such as a date in the year 99999.
    """
    try:
        return [column.to_pylist() for column in answer.columns]
    except (OverflowError, ValueError, pa.ArrowException) as error:
        todo = "Cast it to text, as in `x::VARCHAR`, or write the answer with --parquet."
        raise QueryError(f"a value of the answer cannot be shown: {error}", todo=todo) from error


def _defused(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value
