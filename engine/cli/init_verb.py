"""`dosimeter init`."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from engine.cli.render import json_text
from engine.spec.schema import json_schema
from engine.spec.starter import starter

SCHEMA = "dosimeter.schema.json"
"""The file that the starter's first line names; editors look for it beside the spec."""


@click.command("init")
@click.argument("name")
@click.option("--force", is_flag=True, help="Overwrite a file that is there.")
def command(name: str, *, force: bool) -> None:
    """Write a commented starter spec for a sweep called NAME.

    It goes to sweeps/NAME.yaml where a sweeps/ folder is, else to NAME.yaml, and plans cleanly as it stands. Beside it goes
    the JSON Schema with which editors complete and check it.
    """
    folder = Path("sweeps")
    path = (folder if folder.is_dir() else Path()) / f"{name}.yaml"
    text = starter(name).replace("THIS_FILE", shlex.quote(str(path)))
    if path.exists() and not force:
        raise click.UsageError(f"{path} is there already; --force overwrites it")
    schema = path.with_name(SCHEMA)
    schema.write_text(json_text(json_schema()) + "\n", encoding="utf-8")
    path.write_text(text, encoding="utf-8")
    click.echo(f"wrote {path}, and {schema} for your editor; next: dosimeter plan {shlex.quote(str(path))}")
