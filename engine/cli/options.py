"""Options that several verbs share, so that they are spelled and explained once."""

from __future__ import annotations

import os
from pathlib import Path

import click

SPEC = click.argument("spec", type=click.Path(path_type=Path))
OVERRIDES = click.option(
    "--set", "overrides", multiple=True, metavar="PATH=VALUE", help="Override the spec, such as tune.lr=[1e-4,3e-4]."
)
OUT = click.option("--out", type=click.Path(path_type=Path), help="Run directory [default: runs/<sweep name>].")
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
RUN = click.option("--run", "run_dir", type=click.Path(path_type=Path), help="Run directory [default: the last run].")


RAY_ADDRESS = click.option(
    "--ray-address",
    envvar="RAY_ADDRESS",
    metavar="ADDRESS",
    help="Join this Ray cluster, HOST:PORT or `auto`, instead of starting Ray here; RAY_ADDRESS says the same.",
)


def join(ray_address: str | None) -> None:
    """Put the address of a Ray cluster where Ray itself looks for it, as it is imported."""
    if ray_address is not None:
        os.environ["RAY_ADDRESS"] = ray_address


def run_directory(chosen: Path | None) -> Path:
    """Return the run directory that was chosen, or the last run's."""
    if chosen is not None:
        return chosen
    from engine.run.drive.prepare import last_run

    return last_run()
