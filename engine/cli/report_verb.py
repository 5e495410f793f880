"""`dosimeter report`."""

from __future__ import annotations

from pathlib import Path

import click

from engine.cli import options


@click.command("report")
@options.RUN
@click.option("--out", type=click.Path(path_type=Path), help="Folder to write to [default: <run>/report].")
def command(run_dir: Path | None, out: Path | None) -> None:
    """Draw the charts and write the report: one self-contained HTML file, and every figure as SVG and PNG."""
    from analysis.report import write_report

    report = write_report(options.run_directory(run_dir), out)
    partial = "" if report.done == report.cells else f" (partial: {report.done} of {report.cells} cells are done)"
    click.echo(f"wrote {report.page}{partial}")
    click.echo(f"      {len(report.figures)} figures in {report.page.parent / 'figures'}")
