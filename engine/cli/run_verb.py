"""`dosimeter run`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from engine.cli import options
from engine.cli.main import Exit

if TYPE_CHECKING:
    from engine.run.driver import RunSummary
    from engine.run.hosts import Executor
    from engine.run.prepare import Prepared


@click.command("run")
@options.SPEC
@options.OVERRIDES
@options.OUT
@options.AS_JSON
@click.option("--executor", type=click.Choice(["ray", "inline"]), default="ray", show_default=True, help="Who runs it.")
@click.option("--fail-fast", is_flag=True, help="Start nothing more after the first failure.")
def command(
    *, spec: Path, overrides: tuple[str, ...], out: Path | None, as_json: bool, executor: str, fail_fast: bool
) -> int:
    """Run SPEC. The same command resumes it; nothing that has finished runs again.

    Ctrl-C once finishes what is running and stops; twice stops at once. Exit codes: 0 done, 2 bad spec, 3 finished
    with failed cells, 4 stopped by the budget, 5 store damaged or locked, 130 interrupted.

    \b
    Examples:
      dosimeter run sweeps/quickstart.yaml
      dosimeter run sweeps/quickstart.yaml --set seed=[0,1,2,3,4] --out runs/five-seeds
    """
    from engine.cli.live import LiveProgress
    from engine.cli.render import print_json
    from engine.run.driver import RunOrder, run_sweep
    from engine.run.prepare import prepare, remember_last
    from engine.store.layout import RunDirectory

    prepared = prepare(spec, overrides, out)
    sweep = prepared.loaded.sweep
    order = RunOrder(
        prepared.plan, prepared.forecasts, sweep.run, prepared.catalogue, sweep.description, fail_fast=fail_fast
    )
    _write_down(prepared, spec, overrides)
    remember_last(prepared.root)
    with LiveProgress() as progress:
        progress.note(_opening(prepared))
        summary = run_sweep(order, RunDirectory(prepared.root), _maker(prepared, executor), progress)
    if as_json:
        from dataclasses import asdict

        print_json(asdict(summary) | {"run_dir": str(prepared.root)})
    _say(summary, prepared.root)
    return _exit_code(summary)


def _maker(prepared: Prepared, name: str) -> Callable[[], Executor]:
    resources = prepared.loaded.sweep.run.resources
    root = prepared.root.resolve()

    def inline() -> Executor:
        from engine.run.inline import InlineExecutor
        from engine.run.worker import host_settings

        return InlineExecutor(host_settings(root, resources))

    def on_ray() -> Executor:
        from engine.run.ray_executor import RayExecutor

        return RayExecutor(root, resources)

    return inline if name == "inline" else on_ray


def _write_down(prepared: Prepared, spec: Path, overrides: tuple[str, ...]) -> None:
    """Keep the spec and the plan beside the results."""
    from engine.cli.plan_verb import document
    from engine.store.layout import RunDirectory, write_whole

    run = RunDirectory(prepared.root)
    write_whole(run.spec, lambda path: _copy_spec(spec, overrides, path))
    write_whole(run.plan, lambda path: _dump(document(prepared), path))


def _copy_spec(spec: Path, overrides: tuple[str, ...], path: Path) -> None:
    shutil.copyfile(spec, path)
    if overrides:
        with path.open("a", encoding="utf-8") as stream:
            stream.writelines(["\n", *(f"# run with --set {json.dumps(text)}\n" for text in overrides)])


def _dump(value: object, path: Path) -> None:
    with path.open("w", encoding="utf-8") as stream:
        json.dump(value, stream, ensure_ascii=False, default=str)


def _opening(prepared: Prepared) -> str:
    from engine.cli.render import many

    ahead = prepared.forecast
    cached = f", {ahead.stages - ahead.new:,} there already" if ahead.stages > ahead.new else ""
    return (
        f"{prepared.plan.sweep}: {many(prepared.plan.counts.cells, 'cell')}, {many(ahead.new, 'stage')} to run{cached}"
    )


def _say(summary: RunSummary, root: Path) -> None:
    from engine.cli.render import console, duration, many
    from engine.run.driver import Ending

    out = console(err=True)
    if summary.ending is Ending.NOTHING_TO_DO:
        out.print(f"Nothing to do: all {many(summary.cached, 'stage')} have run already.")
    else:
        out.print(f"{summary.ending.value}: {many(summary.ran, 'stage')} in {duration(summary.seconds)} → {root}")
    if summary.failed:
        skipped = f", {summary.skipped} skipped because of them" if summary.skipped else ""
        out.print(f"{many(summary.failed, 'stage')} failed{skipped}; see `dosimeter query problems`")
    if summary.reason:
        out.print(f"Stopped early: {summary.reason}. The same command resumes.")


def _exit_code(summary: RunSummary) -> int:
    from engine.run.driver import Ending

    return {
        Ending.COMPLETE: Exit.OK,
        Ending.NOTHING_TO_DO: Exit.OK,
        Ending.FAILURES: Exit.FAILURES,
        Ending.BUDGET: Exit.BUDGET,
        Ending.INTERRUPTED: Exit.INTERRUPTED,
    }[summary.ending]
