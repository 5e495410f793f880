"""`dosimeter schema`."""

from __future__ import annotations

import click

from engine.cli.render import print_json
from engine.spec.schema import json_schema


@click.command("schema")
def command() -> None:
    """Print the JSON Schema (draft-07) of a spec.

    \b
    Save it, and name it in a spec's first line; editors then complete and check:
      dosimeter schema > dosimeter.schema.json
      # yaml-language-server: $schema=dosimeter.schema.json
    """
    print_json(json_schema())
