"""`dosimeter run`."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import click

from analysis.wording import count, duration, spent
from engine.cli import options
from engine.cli.live import LiveProgress
from engine.cli.main import Exit
from engine.cli.plan_verb import document
from engine.cli.render import console, print_json, safe
from engine.domain.errors import RunError, RunLostError
from engine.domain.sweep import RunSettings
from engine.plan.accounts import access_of
from engine.plan.machine import is_elsewhere
from engine.run.accounts.leftover import cancel, left_behind
from engine.run.accounts.reach import unreachable
from engine.run.drive.adopt import claim
from engine.run.drive.driver import run_sweep
from engine.run.drive.order import Ending, RunOrder, RunSummary
from engine.run.drive.prepare import RUNS, Prepared, prepare, remember_last
from engine.run.executors.workers import Executor
from engine.spec.load import load_sweep
from engine.store.layout import RunDirectory
from engine.store.state import State


@click.command("run")
@options.SPEC
@options.OVERRIDES
@options.OUT
@options.AS_JSON
@click.option(
    "--executor",
    type=click.Choice(["ray", "inline"]),
    default="ray",
    show_default=True,
    help="Where stages run: on Ray, or in this process.",
)
@options.RAY_ADDRESS
@click.option("--fail-fast", is_flag=True, help="Start nothing more after the first failure.")
@click.option(
    "--cancel-jobs", is_flag=True, help="Cancel what this run leaves under way at providers, however it ends."
)
def command(  # noqa: PLR0913 - click gives each option by name
    *,
    spec: Path,
    overrides: tuple[str, ...],
    out: Path | None,
    as_json: bool,
    executor: str,
    ray_address: str | None,
    fail_fast: bool,
    cancel_jobs: bool,
) -> int:
    """Run SPEC. The same command resumes it; nothing that has finished runs again.

    Ctrl-C once stops at the next step, from which training goes on later, and waits for providers; twice stops at
    once. Jobs at providers go on then, and the same command finds them again, unless --cancel-jobs is given. Exit codes: 0 done, 2 bad spec, 3 finished
    with failed cells, 4 stopped by the budget, 5 store damaged or locked, 130 interrupted.

    \b
    Examples:
      dosimeter run sweeps/quickstart.yaml
      dosimeter run sweeps/quickstart.yaml --set 'seed=[0,1,2,3,4]'
    """
    options.join(ray_address)
    if executor == "inline":
        os.environ.pop("RAY_ADDRESS", None)  # it runs here, whatever cluster there is
    try:
        summary, root = execute(spec, overrides, out, executor, fail_fast=fail_fast)
    except RunLostError:
        _leave_behind(spec, overrides, out or RUNS / load_sweep(spec, overrides).sweep.sweep, cancel_jobs=cancel_jobs)
        raise
    _leave_behind(spec, overrides, root, cancel_jobs=cancel_jobs)
    if as_json:
        print_json(asdict(summary) | {"run_dir": str(root)})
    return exit_code(summary)


def _leave_behind(spec: Path, overrides: tuple[str, ...], root: Path, *, cancel_jobs: bool) -> None:
    """Cancel what is under way at providers if that is wished, or say that it goes on."""
    run = RunDirectory(root)
    left = left_behind(run)
    if not len(left):
        return
    out = console(err=True)
    if cancel_jobs:
        for text in cancel(run, load_sweep(spec, overrides).sweep.run.accounts):
            out.print(safe(text))
        return
    counted = ((left.jobs, "job", ""), (left.batches, "batch", "batches"))
    what = " and ".join(count(len(records), noun, plural) for records, noun, plural in counted if records)
    out.print(f"{what} at providers may go on; the same command finds what was made, and pays once")


def execute(
    spec: Path,
    overrides: tuple[str, ...],
    out: Path | None,
    executor: str,
    *,
    fail_fast: bool = False,
    is_rehearsal: bool = False,
) -> tuple[RunSummary, Path]:
    """Run a sweep, show how it goes, and return how it ended and where.

    Args:
        spec: The YAML file.
        overrides: `--set` texts.
        out: The run directory; `runs/<sweep name>` when None.
        executor: `ray` or `inline`.
        fail_fast: Start nothing more after the first failure.
        is_rehearsal: Whether providers are played by local mock servers.
    """
    prepared = prepare(spec, overrides, out)
    prepared.memory.refuse(is_alone=executor == "inline")
    _look_at_accounts(prepared)
    order = RunOrder(prepared, _files(prepared, spec, overrides), fail_fast, is_rehearsal)
    with LiveProgress() as progress:
        progress.note(_opening(prepared))
        for text in (*prepared.memory.notes, *prepared.reservations) if prepared.forecast.new else ():
            progress.note(text)
        claim(RunDirectory(prepared.root))
        try:
            remember_last(prepared.root)
        except OSError as error:  # a convenience of the reading verbs, for which no run is refused
            progress.note(f"the reading verbs will need --run: {error}")
        summary = run_sweep(order, RunDirectory(prepared.root), _maker(prepared, executor), progress)
    _say(summary, prepared.root)
    return summary, prepared.root


def _look_at_accounts(prepared: Prepared) -> None:
    """Refuse to begin without the keys that will be needed, or where a provider cannot be reached.

    Raises:
        RunError: A key is missing, or a server.
    """
    needed = {account for key, account in prepared.groups.accounts.items() if key not in prepared.survey.cached}
    accounts = prepared.loaded.sweep.run.accounts
    rehearse = "or `dosimeter rehearse` the sweep, which needs"
    for name in sorted(needed):
        variable = access_of(name, accounts[name]).key_env
        if not os.environ.get(variable):
            what, todo = f"the environment has no {variable}", f"export {variable}, {rehearse} no key"
            raise RunError(what, where=f"run.accounts.{name}.key_env", todo=todo)
    for name in sorted(needed):
        if (why := unreachable(accounts[name])) is not None:
            todo = f"look at `base_url` and the network, {rehearse} neither"
            raise RunError(f"cannot connect to {why}", where=f"run.accounts.{name}", todo=todo)


def _maker(prepared: Prepared, name: str) -> Callable[[], Executor]:
    root, settings = prepared.root.resolve(), prepared.loaded.sweep.run

    def inline() -> Executor:
        from engine.run.executors.workers import InlineExecutor

        return InlineExecutor(root, settings)

    def on_ray() -> Executor:
        from engine.run.executors.ray_executor import RayExecutor

        adapters = dict.fromkeys((stage.kind, stage.adapter) for stage in prepared.plan.stages.values())
        return RayExecutor(root, settings if is_elsewhere() else _as_many_as_fit(prepared), adapters)

    return inline if name == "inline" else on_ray


def _as_many_as_fit(prepared: Prepared) -> RunSettings:
    """Return the run's settings with the GPUs that were planned for, and no more workers than memory allows."""
    settings, here = prepared.loaded.sweep.run, prepared.memory.machine
    resources = settings.resources.model_copy(update={"hosts": here.workers, "gpus_per_host": here.devices})
    return settings.model_copy(update={"resources": resources})


def _files(prepared: Prepared, spec: Path, overrides: tuple[str, ...]) -> dict[str, str]:
    """The spec and the plan, to keep beside the results."""
    text = spec.read_text(encoding="utf-8")
    if overrides:
        text += "".join(["\n", *(f"# run with --set {json.dumps(override)}\n" for override in overrides)])
    return {"spec.yaml": text, "plan.json": json.dumps(document(prepared), ensure_ascii=False, default=str)}


def _opening(prepared: Prepared) -> str:
    ahead = prepared.forecast
    cached = f", {ahead.stages - ahead.new:,} there already" if ahead.stages > ahead.new else ""
    return f"{prepared.plan.sweep}: {count(prepared.plan.counts.cells, 'cell')}, {count(ahead.new, 'stage')} to run{cached}"


def _say(summary: RunSummary, root: Path) -> None:
    out = console(err=True)
    if summary.ending is Ending.NOTHING_TO_DO:
        out.print(f"Nothing to do: all {count(summary.cached, 'stage')} have run already.")
    else:
        out.print(f"{summary.ending.value}: {count(summary.ran, 'stage')} in {duration(summary.seconds)} → {root}")
    if summary.failed:
        skipped = f", {summary.skipped} skipped because of them" if summary.skipped else ""
        out.print(f"{count(summary.failed, 'stage')} failed{skipped}; see `dosimeter query problems`")
    if summary.reason:
        out.print(f"Stopped early: {summary.reason}")
    say_spent(root)


def say_spent(root: Path) -> None:
    """Say what this run directory has cost by now, if it did."""
    state = State.peek(RunDirectory(root))
    usage, charge = state.usage()
    known, unpriced = state.known()
    state.close()
    possibly_billed = usage.possibly_billed.tokens
    if known or possibly_billed:
        told = spent(known, unpriced, charge.possibly_billed_usd, possibly_billed)
        console(err=True).print(f"Spent in this run directory: {told}")


def exit_code(summary: RunSummary) -> int:
    """Return the exit code of a run that ended so."""
    return {
        Ending.FAILURES: Exit.FAILURES,
        Ending.FAILED_FAST: Exit.FAILURES,
        Ending.BUDGET: Exit.BUDGET,
        Ending.INTERRUPTED: Exit.INTERRUPTED,
    }.get(summary.ending, Exit.OK)
