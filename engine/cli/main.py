"""The command line: verbs, exit codes, and the one place where an error becomes text. Verbs are imported when used."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from dataclasses import asdict
from enum import IntEnum
from typing import Any

import click


class Exit(IntEnum):
    """Exit codes; docs/reference/cli.md says the same."""

    OK = 0
    BUG = 1
    USAGE = 2  # a bad spec, a bad option, an unknown query
    FAILURES = 3  # finished, and some cells failed
    BUDGET = 4  # stopped by the budget
    STORE = 5  # the store is damaged or locked
    INTERRUPTED = 130


PROBLEMS_SHOWN = 100
VERBS = {
    "init": "Write a first spec: a starter, or one for your own files.",
    "plan": "Show what a spec will do and cost, before anything runs.",
    "run": "Run a sweep; the same command resumes it.",
    "rehearse": "Run a sweep against local mock servers: no key, no network, no bill.",
    "status": "Show how far a run is, from any terminal.",
    "query": "Ask the results: a named question or your own SQL.",
    "judge-bench": "Say how wrong judges are, from replies that people labelled.",
    "report": "Draw the charts and write the report.",
    "adapters": "List the installed adapters, and what each can be told.",
    "schema": "Print the JSON Schema of a spec, for editors.",
    "serve-standin": "Serve the stand-in as a hosted provider would, to rehearse against.",
}


class LazyGroup(click.Group):
    """Imports a verb's module when it is used, so that `--help` answers at once."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the verbs in the order in which people meet them."""
        del ctx
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one verb."""
        del ctx
        if cmd_name not in VERBS:
            return None
        command: click.Command = importlib.import_module(f"engine.cli.{cmd_name.partition('-')[0]}_verb").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the verbs without importing any."""
        del ctx
        with formatter.section("Verbs"):
            formatter.write_dl(list(VERBS.items()))

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Suggest a verb for a mistyped one."""
        if args and args[0] not in VERBS and not args[0].startswith("-"):
            from difflib import get_close_matches

            close = get_close_matches(args[0], VERBS, n=1)
            hint = f"did you mean `{close[0]}`?" if close else f"the verbs are {', '.join(VERBS)}"
            raise click.UsageError(f"no verb is called `{args[0]}`; {hint}", ctx)
        return super().resolve_command(ctx, args)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="dosimeter", message="dosimeter %(version)s")
def cli() -> None:
    """Measure what fine-tuning does to a language model's safety, per dollar.

    \b
    Start here:
      dosimeter plan sweeps/quickstart.yaml
      dosimeter run sweeps/quickstart.yaml
      dosimeter report
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    sys.exit(run_cli(arguments))


def run_cli(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; every error that reaches a person goes through here."""
    try:
        result = cli.main(args=arguments, standalone_mode=False, prog_name="dosimeter")
        return int(result) if isinstance(result, int) else Exit.OK
    except (click.exceptions.Abort, KeyboardInterrupt):
        return Exit.INTERRUPTED
    except click.ClickException as error:
        error.show()
        return Exit.USAGE
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader left, as `head` does
        return Exit.OK
    except Exception as error:  # noqa: BLE001 - the front door: no traceback reaches a person unless it is our bug
        return _explain(error, as_json="--json" in (sys.argv if arguments is None else arguments))


def _shortened(error: Any) -> str:
    """A spec's problems, at most a screenful or two: a hostile file may have 100,000."""
    shown = [str(problem) for problem in error.problems[:PROBLEMS_SHOWN]]
    hidden = len(error.problems) - len(shown)
    return "\n".join([*shown, *([f"... and {hidden:,} more"] if hidden else []), error.what])


def _explain(error: Exception, *, as_json: bool) -> int:
    """Print an error, and the same as JSON where that was asked for."""
    from engine import registry
    from engine.domain.errors import DosimeterError, RunLockedError, SpecError, StoreError

    if isinstance(error, SpecError):
        shown: dict[str, object] = {"problems": [asdict(problem) for problem in error.problems]}
        lines, code = [_shortened(error)], Exit.USAGE
    elif isinstance(error, DosimeterError | OSError):
        code = Exit.STORE if isinstance(error, StoreError | RunLockedError) else Exit.USAGE
        if isinstance(error, OSError):
            where, todo = str(error.filename or ""), "look at the path, its permissions and the room"
            error = DosimeterError(error.strerror or str(error), where=where, todo=todo)
        shown = {"error": {"what": error.what, "where": error.where, "todo": error.todo}}
        lines = [f"error: {error.what}", *(f"  {part}" for part in (error.where, error.todo) if part)]
    else:
        click.echo("".join(traceback.format_exception(error)), err=True)
        if package := registry.owner(error):
            click.echo(
                f"error: this is a bug in the package `{package}`, whose adapters you use: tell its authors", err=True
            )
            return Exit.USAGE
        click.echo("error: this is a bug in dosimeter; please report it with the lines above", err=True)
        return Exit.BUG
    if as_json:
        from engine.cli.render import print_json

        print_json({"schema": "dosimeter.errors/1"} | shown)
    click.echo("\n".join(lines), err=True)
    return code
