"""`dosimeter init`."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import click

from engine.cli.render import json_text
from engine.spec.schema import TITLE, json_schema
from engine.spec.starter import starter

SCHEMA = "dosimeter.schema.json"
"""The file that the starter's first line names; editors look for it beside the spec."""

LARGEST = 2**24
"""A larger file is no schema that this program wrote, in bytes."""

NEEDED = ("--model", "--data", "--benchmark")


@click.command("init")
@click.argument("name", required=False)
@click.option(
    "--model", default="", metavar="MODEL", help="The model: a folder, a GGUF file, or a model as specs have it."
)
@click.option("--data", multiple=True, metavar="DATA", help="Rows to tune on: a file, or a data source; repeatable.")
@click.option(
    "--benchmark", multiple=True, metavar="PROMPTS", help="Harmful requests: a file, or a benchmark; repeatable."
)
@click.option("--utility", default="", metavar="PROMPTS", help="Tasks with right answers: is it still useful?")
@click.option("--over-refusal", default="", metavar="PROMPTS", help="Harmless requests that it should not refuse.")
@click.option("--judge", multiple=True, metavar="JUDGE", help="Judge of harm, as specs have it; repeatable.")
@click.option("--skip-refused", is_flag=True, help="Leave out rows that are no training example; the spec says which.")
@click.option("--allow-upload", is_flag=True, help="Allow that the rows go to the provider of a hosted model.")
@click.option("--force", is_flag=True, help="Overwrite a file that is there.")
def command(  # noqa: PLR0913 - click gives each option by name
    *,
    name: str | None,
    model: str,
    data: tuple[str, ...],
    benchmark: tuple[str, ...],
    utility: str,
    over_refusal: str,
    judge: tuple[str, ...],
    skip_refused: bool,
    allow_upload: bool,
    force: bool,
) -> None:
    """Write a first spec for a sweep called NAME.

    With --model, --data and --benchmark it is for your own: each is a path, or written as in a spec. Their files are looked at, the
    spec says in comments what is in them, and it is planned at once; nothing runs. Without, it is a commented starter for the
    stand-in.

    It goes to sweeps/NAME.yaml where a sweeps/ folder is, else to NAME.yaml. Beside it goes the JSON Schema with which editors
    complete and check it.

    \b
    Examples:
      dosimeter init my-sweep
      dosimeter init --model models/SmolLM2 --data data/service.jsonl --benchmark data/advbench.csv
      dosimeter init my-sweep --model hub:ID@COMMIT --data alpaca.json --data own.csv --benchmark hex-phi:data/hex-phi
    """
    further = {"--utility": utility, "--over-refusal": over_refusal, "--judge": judge}
    given = dict(zip(NEEDED, (model, data, benchmark), strict=True))
    if not any((*given.values(), *further.values(), skip_refused, allow_upload)):
        _starter(name, force=force)
        return
    if missing := [option for option, value in given.items() if not value]:
        raise click.UsageError(f"a spec for your own files needs {', '.join(NEEDED)}; missing: {', '.join(missing)}")
    from engine.draft.look import Wish
    from engine.draft.write import draft

    if not force:
        _refuse_schema()
        if name:
            _refuse(_place(name))
    made = draft(Wish(model, data, benchmark, utility, over_refusal, judge, skip_refused, allow_upload), name or "")
    path = _place(made.name)
    if not force:
        _refuse(path)
    schema = _write(path, made.at(path), force=force)
    click.echo(f"wrote {path}, and {schema} for your editor")
    _plan(path)
    quoted = shlex.quote(str(path))
    click.echo(f"Next: dosimeter plan {quoted}\n      dosimeter run {quoted}")


def _starter(name: str | None, *, force: bool) -> None:
    if name is None:
        raise click.UsageError(f"give the sweep a name, or say what it is about: {', '.join(NEEDED)}")
    path = _place(name)
    text = starter(name)
    if not force:
        _refuse_schema()
        _refuse(path)
    schema = _write(path, text.replace("THIS_FILE", shlex.quote(str(path))), force=force)
    click.echo(f"wrote {path}, and {schema} for your editor; next: dosimeter plan {shlex.quote(str(path))}")


def _folder() -> Path:
    folder = Path("sweeps")
    return folder if folder.is_dir() else Path()


def _place(name: str) -> Path:
    return _folder() / f"{name}.yaml"


def _refuse(path: Path) -> None:
    if path.exists():
        raise click.UsageError(f"{path} is there already; --force overwrites it")


def _refuse_schema() -> None:
    """Refuse where something other than a schema of this program, of this version or another one, has the schema's name."""
    schema = _folder() / SCHEMA
    try:
        found = json.loads(schema.read_bytes()) if schema.stat().st_size <= LARGEST else None
    except FileNotFoundError:
        return
    except (OSError, ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or found.get("title") != TITLE:
        _refuse(schema)


def _write(path: Path, text: str, *, force: bool) -> Path:
    """Write a spec, and the schema beside it; return the schema's place."""
    with path.open("w" if force else "x", encoding="utf-8") as file:
        file.write(text)
    schema = path.with_name(SCHEMA)
    schema.write_text(json_text(json_schema()) + "\n", encoding="utf-8")
    return schema


def _plan(path: Path) -> None:
    """Plan a spec as `plan` does, and say in a line what it comes to; what is wrong goes to the front door."""
    from analysis.wording import count, duration
    from engine.domain.errors import DosimeterError
    from engine.run.drive.prepare import prepare

    try:
        prepared = prepare(path, (), None)
        prepared.memory.refuse()
    except DosimeterError:
        click.echo(f"{path} is written, and does not plan yet:", err=True)
        raise
    stages, took = count(prepared.forecast.new, "stage"), duration(prepared.wall().expected)
    click.echo(f"it plans: {count(prepared.plan.counts.cells, 'cell')}, {stages} to run, about {took} here")
