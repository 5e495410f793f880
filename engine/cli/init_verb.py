"""`dosimeter init`."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("init")
@click.argument("name")
@click.option("--force", is_flag=True, help="Overwrite a file that is there.")
def command(name: str, *, force: bool) -> None:
    """Write a commented starter spec for a sweep called NAME.

    It goes to sweeps/NAME.yaml where a sweeps/ folder is, else to NAME.yaml, and plans cleanly as it stands.
    """
    from engine.spec.starter import starter

    text = starter(name)
    folder = Path("sweeps")
    path = (folder if folder.is_dir() else Path()) / f"{name}.yaml"
    if path.exists() and not force:
        raise click.UsageError(f"{path} is there already; --force overwrites it")
    path.write_text(text, encoding="utf-8")
    click.echo(f"wrote {path}; next: dosimeter plan {path}")
