"""`dosimeter status`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from analysis.wording import duration, spent
from engine.cli import options
from engine.cli.live import under_way
from engine.cli.render import console, print_json, print_table, safe
from engine.domain.stage import StageKind, StageState
from engine.run.drive.lock import is_held
from engine.store.layout import RunDirectory
from engine.store.state import State

FAILURES_SHOWN = 5


@click.command("status")
@options.RUN
@options.AS_JSON
def command(run_dir: Path | None, *, as_json: bool) -> None:
    """Show how far a run is. Works at any time, from any terminal, and disturbs nothing."""
    root = options.run_directory(run_dir)
    with State.peek(RunDirectory(root)) as state:
        found = _look(root, state)
    if as_json:
        print_json(found)
    else:
        _print(found)


def _look(run_dir: Path, state: State) -> dict[str, Any]:
    meta = state.meta()
    beat = json.loads(meta.get("heartbeat", "{}"))
    running = is_held(RunDirectory(run_dir))
    usage, charge = state.usage()
    known, unpriced = state.known()
    is_priced = charge.usd is not None and bool(charge.usd or meta.get("usd_per_device_hour"))
    stages: dict[str, dict[str, int]] = {}
    for (kind, name), number in state.planned_counts().items():
        stages.setdefault(kind, {})[name] = number
    return {
        "schema": "dosimeter.status/1",
        "run_dir": str(run_dir),
        "sweep": meta.get("sweep"),
        "phase": "running" if running else meta.get("ending") or "stopped without an ending",
        "cells": state.cell_counts(),
        "stages": stages,
        "seconds_left": beat.get("seconds_left") if running else None,
        "longest": beat.get("longest") if running else None,
        "device_seconds": usage.device_seconds,
        "usd": charge.usd if is_priced else None,
        "known_usd": known,
        "unpriced": unpriced,
        "possibly_billed_tokens": usage.possibly_billed.tokens,
        "possibly_billed_usd": charge.possibly_billed_usd,
        "failures": [asdict(failed) for failed in state.failures(FAILURES_SHOWN)],
    }


def _print(found: dict[str, Any]) -> None:
    out = console()
    cells = found["cells"]
    left = f", {duration(found['seconds_left'])} left" if found["seconds_left"] is not None else ""
    on = f", {under_way(*found['longest'])}" if found["longest"] is not None else ""
    out.print(f"{found['sweep']}  {found['phase']}{on}{left}", style="bold")
    blocked = f", {cells['blocked']:,} blocked by the provider" if cells["blocked"] else ""
    out.print(
        f"{cells['done']:,} of {sum(cells.values()):,} cells done, {cells['failed']:,} failed{blocked}"
        f"  →  {found['run_dir']}"
    )
    names = [state.value for state in StageState if any(state.value in kinds for kinds in found["stages"].values())]
    rows = [
        (kind.value, *(found["stages"][kind.value].get(name, 0) for name in names))
        for kind in StageKind
        if kind.value in found["stages"]
    ]
    print_table(("", *names), rows, numeric=names)
    known, possibly_billed = found["known_usd"], found["possibly_billed_tokens"]
    is_said = known or possibly_billed or found["usd"] is not None
    sums = (known, found["unpriced"], found["possibly_billed_usd"], possibly_billed)
    price = f", {spent(*sums)}" if is_said else ""
    out.print(f"{duration(found['device_seconds'])} of device time{price}")
    for failure in found["failures"]:
        more = f" and {failure['cells'] - 1:,} more" if failure["cells"] > 1 else ""
        who = f"{failure['kind']} by {failure['adapter']}"
        out.print(
            f"failed: {safe(failure['cell'])}{more}: {who}: {safe(failure['error_type'])}: {safe(failure['error'])}"
        )
    if found["phase"] not in ("running", "complete"):
        out.print("The same `dosimeter run` command resumes it.")
