"""`dosimeter plan`."""

from __future__ import annotations

import os
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from engine.cli import options, plan_view
from engine.cli.render import print_json
from engine.domain.adapters import Use
from engine.plan.audit.audit import Audit
from engine.plan.machine import is_elsewhere
from engine.plan.why import find_cell, why
from engine.run.drive.prepare import Prepared, prepare
from engine.store.layout import RunDirectory
from engine.store.state import State

SCHEMA = "dosimeter.plan/1"


@click.command("plan")
@options.SPEC
@options.OVERRIDES
@options.OUT
@options.AS_JSON
@options.RAY_ADDRESS
@click.option("--cells", "show_cells", is_flag=True, help="List every cell.")
@click.option("--why", metavar="CELL", help="Say why CELL (an id, a position, or words of its label) will run.")
def command(  # noqa: PLR0913 - click gives each option by name
    *,
    spec: Path,
    overrides: tuple[str, ...],
    out: Path | None,
    as_json: bool,
    ray_address: str | None,
    show_cells: bool,
    why: str | None,
) -> None:
    """Show what SPEC will do and cost. Nothing runs; neither Ray nor torch is started in this process.

    The first plan of a model measures how fast this machine is, in processes of their own, and remembers it.

    \b
    Examples:
      dosimeter plan sweeps/quickstart.yaml
      dosimeter plan sweeps/quickstart.yaml --set 'tune.lr=[1e-4,3e-4]' --cells
      dosimeter plan sweeps/quickstart.yaml --why "source=standin/explicit n=10 epochs=5 lr=0.0015 seed=0"
    """
    options.join(ray_address)
    prepared = prepare(spec, overrides, out)
    if why is not None:
        _why(prepared, why, as_json=as_json)
    elif as_json:
        print_json(document(prepared))
    elif show_cells:
        plan_view.print_cells(prepared)
    else:
        plan_view.print_plan(prepared, _run_command(spec, overrides, out))
    prepared.memory.refuse()


def _run_command(spec: Path, overrides: tuple[str, ...], out: Path | None) -> str:
    """The command that runs exactly this plan."""
    words = ["dosimeter", "run", str(spec)]
    for override in overrides:
        words += ["--set", override]
    address = ["--ray-address", os.environ["RAY_ADDRESS"]] if is_elsewhere() else []
    return shlex.join([*words, *([] if out is None else ["--out", str(out)]), *address])


def _why(prepared: Prepared, name: str, *, as_json: bool) -> None:
    cell = find_cell(prepared.plan, name)
    done: list[str] = []
    if RunDirectory(prepared.root).state.exists():
        with State.peek(RunDirectory(prepared.root)) as state:
            done = state.payloads()
    reasons = why(prepared.plan, cell, done, prepared.survey.cached)
    if as_json:
        print_json({"cell_id": cell.cell_id, "label": cell.label, "stages": [asdict(reason) for reason in reasons]})
    else:
        plan_view.print_why(cell, reasons)


def _level(level: Any) -> Any:
    """Return a level as JSON has it: adapters as people write them."""
    if isinstance(level, tuple):
        return [_level(item) for item in level]
    return str(level) if isinstance(level, Use) else level


def _rows(found: Audit) -> dict[str, Any]:
    """Return what training rows were looked at for as JSON has it."""
    compared, sent = found.compared, found.uploaded
    return {
        "compared": compared.rows,
        "prompts": compared.prompts,
        "overlaps": [
            asdict(one) | {"source": str(one.source), "benchmark": str(one.benchmark)} for one in compared.overlaps
        ],
        "repeated": [
            {"earlier": str(first), "later": str(second), "rows": number}
            for (first, second), number in compared.repeated.items()
        ],
        "uploaded": sent.rows,
        "private": [asdict(one) | {"source": str(one.source)} for one in sent.exposures],
        "accepted": [finding.name for finding in found.accepted],
        "notes": list(found.notes),
    }


def document(prepared: Prepared) -> dict[str, Any]:
    """Return the plan as JSON: counts, forecast, pins and cells, each cell with the keys of its stages."""
    plan, ahead = prepared.plan, prepared.forecast
    usd = None if ahead.usd is None else dict(zip(("low", "expected", "high"), map(str, ahead.usd), strict=True))
    return {
        "schema": SCHEMA,
        "sweep": plan.sweep,
        "spec_sha256": plan.spec_sha256,
        "run_dir": str(prepared.root),
        "standin": plan.standin,
        "counts": asdict(plan.counts) | {"cells": plan.counts.cells},
        "stages": {"distinct": ahead.stages, "new": ahead.new, "unshared": ahead.alone},
        "training": asdict(prepared.savings),
        "forecast": {
            "usd": usd,
            "calibrated": ahead.calibrated,
            "kinds": [asdict(entry) for entry in ahead.kinds],
            "total": asdict(ahead.total),
            "wall": asdict(prepared.wall()),
            "wall_inline": asdict(prepared.wall(has_ray=False)),
            "hosted": [asdict(line) for line in prepared.bill],
            "reservations": list(prepared.reservations),
        },
        "memory": {
            "machine": asdict(prepared.memory.machine),
            "most": {kind.value: asdict(prepared.memory.fits[one.key]) for kind, one in prepared.memory.most.items()},
            "notes": list(prepared.memory.notes),
            "rows_at_once": {key: fit.rows for key, fit in prepared.memory.fits.items()},
        },
        "budget": [asdict(cap) | {"fits": cap.fits, "surely_fits": cap.surely_fits} for cap in prepared.caps],
        "minimum_detectable_effect": asdict(prepared.sensitivity),
        "rows": _rows(prepared.audit),
        "pins": [asdict(pin) for pin in plan.pins],
        "cells": [
            {
                "cell_id": cell.cell_id,
                "label": cell.label,
                "coordinates": {path: _level(level) for path, level in cell.cell.levels.items()},
                "origin": cell.origin.value,
                "baseline_cell_id": cell.baseline_id,
                "unmitigated_cell_id": cell.unmitigated_id,
                "cached": all(key in prepared.survey.cached for key in cell.stages),
                "stage_keys": list(cell.stages),
            }
            for cell in plan.cells
        ],
    }
