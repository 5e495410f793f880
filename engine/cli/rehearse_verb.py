"""`dosimeter rehearse`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from decimal import Decimal
from pathlib import Path

import click

from analysis.wording import besides, count, duration
from engine.cli import options
from engine.cli.render import console, print_table
from engine.cli.run_verb import execute, exit_code
from engine.domain.errors import PlanError
from engine.plan.tariff import prices_of, purchases, today
from engine.run.drive.prepare import RUNS, Prepared, prepare
from engine.run.drive.rehearsal import Served, Wanted, going_on, make_room, merged, mock_order, mock_server, serving
from engine.run.drive.rehearsal import overrides as pointing
from engine.spec.written import read_written
from engine.store.layout import RunDirectory
from engine.store.state import State

SPEED = 60.0


@click.command("rehearse")
@options.SPEC
@options.OVERRIDES
@click.option("--out", type=click.Path(path_type=Path), help="Run directory [default: runs/NAME-rehearsal].")
@click.option(
    "--speed",
    type=click.FloatRange(min=1.0),
    default=SPEED,
    show_default=True,
    help="How many times faster than at the provider time passes: jobs take less, limits a minute are higher.",
)
@click.option(
    "--server",
    "server",
    multiple=True,
    metavar="KEY=VALUE",
    help="A setting of the servers, as serve-standin takes it.",
)
@click.option(
    "--executor", type=click.Choice(["ray", "inline"]), default="ray", show_default=True, help="As for `run`."
)
def command(
    *, spec: Path, overrides: tuple[str, ...], out: Path | None, speed: float, server: tuple[str, ...], executor: str
) -> int:
    """Run SPEC with every provider played by a local mock server on this machine.

    The server comes with the provider's adapter. It implements the provider's API, keeps its quotas and bills its prices;
    made-up models answer, whatever the sweep calls them. No key is used, nothing leaves the machine, and nothing is paid.
    What runs on this machine runs as always. The same command goes on with a rehearsal that was stopped, and begins the
    next one after one that is complete: in runs/NAME-rehearsal, -rehearsal-2 and so on.

    \b
    Examples:
      dosimeter rehearse sweeps/hosted_vs_local.yaml
      dosimeter rehearse sweeps/hosted_vs_local.yaml --speed 600 --server seed=1
    """
    prepared = prepare(spec, overrides, None)
    root = out if out is not None else going_on(RUNS / f"{prepared.plan.sweep}-rehearsal")
    run = RunDirectory(root)
    wanted = _wanted(prepared, run.rehearsal, speed, server)
    make_room(run)
    accounts = prepared.loaded.sweep.run.accounts
    with serving(wanted) as served:
        pointed = [text for one in served for text in pointing(one, accounts[one.account], speed)]
        began = time.time()
        summary, root = execute(spec, (*overrides, *pointed), root, executor, is_rehearsal=True)
        _say(served, root, prepared.groups.accounts.keys(), began, speed)
    return exit_code(summary)


def _wanted(prepared: Prepared, folder: Path, speed: float, more: Sequence[str]) -> dict[str, Wanted]:
    """Return the mock server of each account that the plan uses; it keeps what it has below a folder.

    Args:
        prepared: The sweep.
        folder: A folder.
        speed: How many times faster than at the provider time passes.
        more: Settings of the user's for every server, as `KEY=VALUE`.

    Raises:
        PlanError: It uses none, or one whose provider brings no mock server.
        SpecError: Something is wrong with the settings.
    """
    run, table, day = prepared.loaded.sweep.run, prices_of(prepared.loaded.sweep.run), today()
    found = {}
    for name, account in run.accounts.items():
        own = {key: used for key, used in prepared.groups.accounts.items() if used == name}
        what = {one: table.quote(one.provider, one.priced_as, day) for one in purchases(prepared.plan.stages, own)}
        if what:
            server = mock_server(account.provider)
            user, _ = read_written(server.settings, b"", "--server", more)
            settings = server.settings_for(mock_order(account, what, folder / name, speed))
            set_ = user.model_dump(mode="json", exclude_unset=True)
            found[name] = Wanted(account.provider, merged(settings, set_))
    if not found:
        raise PlanError("this sweep asks nothing of a provider", where="run.accounts", todo="`dosimeter run` runs it")
    return found


def _say(served: Sequence[Served], root: Path, hosted: AbstractSet[str], began: float, speed: float) -> None:
    """Print what the servers saw, and billed in all of this rehearsal's runs, beside what the ledger says."""
    rows = []
    for one in served:
        audit = one.server.audit(one.base_url)
        seen = (audit.requests, audit.rate_limited, audit.peak_in_flight)
        rows.append((one.account, *seen, f"${audit.usd.normalize():f}"))
    print_table(("account", "requests", "429s", "most at a time", "billed"), rows, numeric=("requests", "429s"))
    state = State.peek(RunDirectory(root))
    charged = [(used, charge) for key, used, charge in state.charges() if key in hosted and charge.usd is not None]
    times = [(start, end) for key, start, end in state.times() if key in hosted and start >= began]
    state.close()
    out = console(err=True)
    usd = sum((charge.usd or Decimal() for _, charge in charged), Decimal())
    out.print(f"The ledger: ${usd.normalize():f} in {count(len(charged), 'attempt')}")
    if possibly_billed := sum(used.possibly_billed.tokens for used, _ in charged):
        out.print(
            f"and {besides(sum((charge.possibly_billed_usd or Decimal() for _, charge in charged), Decimal()), possibly_billed)}"
        )
    if times:
        seconds = max(end for _, end in times) - min(start for start, _ in times)
        there = f"at the provider's pace about {duration(seconds * speed)}"
        out.print(f"From the first of them to the last {duration(seconds)} here, {there}")
