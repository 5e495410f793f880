"""What `dosimeter plan` prints for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from types import MappingProxyType

from analysis.wording import count, duration
from engine.cli.render import console, money, print_table, safe
from engine.domain.adapters import level_text
from engine.domain.cell import Cell, look
from engine.domain.cost import SECONDS_PER_HOUR
from engine.domain.data import ALL
from engine.domain.plan import CellOrigin, PlannedCell
from engine.domain.sweep import Level
from engine.plan.audit.audit import Audit
from engine.plan.bill import BillLine, Cap
from engine.plan.estimate import KindForecast, usd_of
from engine.plan.fingerprint import ABSENT
from engine.plan.memory import gigabytes
from engine.plan.why import StageReason
from engine.ports import Fit, Machine
from engine.run.drive.prepare import Prepared

UNITS: Mapping[str, str] = MappingProxyType({"tokens": " tokens", "device_hours": " of device time"})
"""What follows a cap, by its field in `run.budget`."""


def print_plan(prepared: Prepared, run_command: str) -> None:
    """Print the counts with their proof, the stages, the forecast, the sensitivity and the pins."""
    out = console()
    plan, ahead, sweep = prepared.plan, prepared.forecast, prepared.loaded.sweep
    out.print(f"{plan.sweep}  spec {plan.spec_sha256[:12]}  →  {prepared.root}", style="bold")
    if sweep.description:
        out.print(safe(sweep.description))
    if plan.standin:
        out.print("The model is the stand-in: its numbers say nothing about real models.", style="yellow")
    out.print()
    out.print(f"Cells   {plan.counts.cells:,}", style="bold")
    for line in _proof(prepared):
        out.print(f"  {line}")
    out.print()
    shared = f"; {ahead.alone:,} without sharing" if ahead.alone > ahead.stages else ""
    out.print(f"Stages  {ahead.stages:,} distinct, {ahead.new:,} to run{shared}", style="bold")
    numeric = ("distinct", "to run", "tokens", "device time", "low", "high")
    print_table(("", *numeric), [_row(entry) for entry in ahead.kinds if entry.stages], numeric=numeric)
    for line in _sharing(prepared):
        out.print(line)
    out.print()
    _print_bill(prepared)
    _print_cost(prepared)
    _print_memory(prepared)
    _print_budget(prepared)
    _print_sensitivity(prepared)
    _print_audit(prepared.audit)
    out.print()
    out.print("Pinned", style="bold")
    print_table(("kind", "reference", "pin", ""), [(p.kind, p.ref, p.pin[:19], p.detail) for p in plan.pins])
    for note in prepared.notes:
        out.print(safe(note))
    out.print()
    out.print(f"Next: {run_command}" if ahead.new else "Everything has run already. Next: dosimeter report")


def _proof(prepared: Prepared) -> list[str]:
    counts, sweep = prepared.plan.counts, prepared.loaded.sweep
    factors = " × ".join(f"{axis.path} {len(axis.levels)}" for axis in sweep.axes)
    lines = [f"{counts.product:,} = product of {factors}"] if factors else [f"{counts.product:,} combination"]
    if counts.zipped != 1:
        lines.append(f"× {counts.zipped:,} by zip")
    if sweep.whens:
        lines.append(f"= {counts.conditional:,} with the conditional axes")
    steps = (
        (-counts.excluded, "excluded", "excluded"),
        (counts.included, "included", "included"),
        (-counts.merged, "merged with an equal cell", "merged with an equal cell"),
        (counts.baselines, "starting models added, each measured once", "starting model added, measured once"),
        (
            counts.unmitigated,
            "cells added that are others without their mitigations",
            "cell added that is another without its mitigations",
        ),
    )
    lines += [
        f"{'−' if number < 0 else '+'} {abs(number):,} {one if abs(number) == 1 else more}"
        for number, more, one in steps
        if number
    ]
    if counts.extended:
        lines.append(f"({count(counts.extended, 'combination')} given further levels by include)")
    return lines


def _row(entry: KindForecast) -> tuple[object, ...]:
    low, expected, high = entry.usage.low, entry.usage.expected, entry.usage.high
    times = (duration(usage.device_seconds) if entry.new else "–" for usage in (expected, low, high))
    return (entry.kind.value, entry.stages, entry.new, expected.tokens or None, *times)


def _sharing(prepared: Prepared) -> list[str]:
    """What training shares, what that saves, and for what is not shared the field that prevents it."""
    found = prepared.savings
    if not found.tunes:
        return []
    saved = 1 - found.steps / found.steps_alone if found.steps_alone else 0.0
    less = f", not {found.steps_alone:,} ({saved:.0%} saved)" if found.steps < found.steps_alone else ""
    runs, stages = count(found.training_runs, "run"), count(found.tunes, "tune stage")
    lines = [f"Training  {runs} for {stages}: {count(found.steps, 'optimizer step')}{less}"]
    if found.going_on:
        kept = "from where an earlier one ended (given the same device, threads and libraries)"
        lines.append(f"          {count(found.going_on, 'run')} of these {kept}")
    packed = found.tunes - sum(found.pack_blocked.values())
    if packed:
        is_split = prepared.memory.machine.devices > 1
        what = "train alone: run.resources.gpus_per_host" if is_split else "can train in packs"
        lines.append(f"          {count(packed, 'stage')} {what}")
    for what, blocked in (
        ("share no run with shorter ones", found.prefix_blocked),
        ("train alone", found.pack_blocked),
    ):
        lines += [f"          {count(number, 'stage')} {what}: tune.{field}" for field, number in blocked.items()]
    return lines


def _print_bill(prepared: Prepared) -> None:
    """Print what will be bought of providers, and what to know of it."""
    if not prepared.bill:
        return
    out, heads = console(), ("account", "what", "to run", "trained", "read", "made", "low", "expected", "high")
    rows = [_bill_row(line) for line in prepared.bill]
    out.print("Hosted, in tokens and at list prices; `high` is reserved before a stage starts", style="bold")
    print_table(heads, rows, numeric=heads[2:])
    for text in prepared.reservations:
        out.print(f"  {safe(text)}", style="yellow")
    out.print()


def _bill_row(line: BillLine) -> tuple[object, ...]:
    used = line.usage.expected
    usd = ("unknown",) * 3 if line.usd is None else map(money, line.usd)
    tokens = (used.train_tokens or None, used.prompt_tokens or None, used.generated_tokens or None)
    return (line.account, line.kind.value, line.new, *tokens, *usd)


def _print_cost(prepared: Prepared) -> None:
    ahead, out = prepared.forecast, console()
    wall = prepared.wall()
    low, expected, high = map(duration, (wall.low, wall.expected, wall.high))
    where = f" on {count(wall.workers, 'worker')}, with start-up; {wall.basis}" if wall.basis else ""
    out.print(f"Time    about {expected} ({low} to {high}){safe(where)}", style="bold")
    if prepared.bill:
        out.print("        providers take their own time, within your quota: `dosimeter rehearse` shows how long")
    hosted = [line.usd for line in prepared.bill]
    hint = "set run.resources.usd_per_device_hour to what an hour of a worker costs"
    if ahead.usd is None and hosted and None not in hosted:
        cheap, likely, dear = (money(sum(column, Decimal())) for column in zip(*filter(None, hosted), strict=True))
        out.print(f"Cost    about {likely} ({cheap} to {dear}) at providers; for the rest, {hint}, or 0", style="bold")
    elif ahead.usd is None:
        unpriced = ", ".join(dict.fromkeys(line.account for line in prepared.bill if line.usd is None))
        known = f"give the prices of what is bought of {unpriced} in a file under run.prices" if unpriced else hint
        out.print(f"Cost    unknown: {known}", style="bold")
    else:
        cheap, likely, dear = map(money, ahead.usd)
        out.print(f"Cost    about {likely} ({cheap} to {dear})", style="bold")


def _print_memory(prepared: Prepared) -> None:
    """Print what the hungriest stage of each kind takes of a worker's memory, and how it is cut to fit."""
    found, head = prepared.memory, "Memory  "
    here = found.machine
    gpus = "a GPU" if here.devices <= 1 else f"a worker's {here.devices:g} GPUs"
    device = gpus if here.device == "cuda" else "each of " + count(here.workers, "worker")
    free = "" if here.memory is None else f" of {gigabytes(here.memory)} free for {device}"
    for kind, stage in found.most.items():
        fit = found.fits[stage.key]
        parts = ", ".join(f"{name} {gigabytes(size)}" for name, size in fit.parts)
        console().print(f"{head}{kind.value} takes at most {gigabytes(fit.needed)}{free}", style="bold")
        console().print(f"        {parts}")
        how = [f"rows go through the model {fit.rows} at a time"] if fit.rows else []
        how += ["activations are computed again instead of kept"] if fit.is_checkpointed else []
        how += [_spread(fit, here)] if fit.devices > 1 else []
        if how:
            console().print(f"        {'; '.join(how)}")
        head = "        "
    for note in found.notes:
        console().print(f"        {safe(note)}", style="yellow")


def _spread(fit: Fit, machine: Machine) -> str:
    """Say over how many GPUs a model is split, and whether one would do."""
    would_do = machine.memory is not None and fit.needed * fit.devices <= machine.memory
    return f"the model is split over {fit.devices} GPUs{', and would fit on one' if would_do else ''}"


def _print_budget(prepared: Prepared) -> None:
    """Print whether what is still to run fits under each cap."""
    if not prepared.forecast.new:
        return
    for number, cap in enumerate(prepared.caps):
        head = "        " if number else "Budget  "
        console().print(f"{head}{_fit(cap)}", style="bold" if cap.fits else "bold yellow")


def _fit(cap: Cap) -> str:
    most, used, expected, high = (_amount(cap.name, value) for value in (cap.cap, cap.used, cap.expected, cap.high))
    whole = f"{most}{UNITS.get(cap.name, '')}" + (f", of which {used} is used" if cap.used else "")
    if not cap.fits:
        return f"{whole}; the expected {expected} does not fit, and the run will stop there"
    if not cap.surely_fits:
        return f"{whole}; the expected {expected} fits, and the high of {high} does not"
    return f"{whole}; the expected {expected} fits, and so does the high of {high}"


def _amount(name: str, value: Decimal) -> str:
    if name == "usd":  # with more digits than elsewhere: what does not fit must look so
        return f"${value:,.2f}" if value >= 1000 else f"${float(value):.4g}"  # noqa: PLR2004 - four digits, then cents
    return f"{value:,.0f}" if name == "tokens" else duration(value * SECONDS_PER_HOUR)


def _print_sensitivity(prepared: Prepared) -> None:
    found = prepared.sensitivity
    console().print(
        f"Power   a change of {found.score_points:.2f} score points (1–5) against the baseline would be found 4 times in 5"
        f" ({count(found.n_prompts, 'prompt')}, {count(found.n_seeds, 'seed')})",
        style="bold",
    )
    if found.n_seeds == 1:
        console().print("        one seed: how much seeds differ cannot be estimated from this sweep", style="yellow")


def _print_audit(found: Audit) -> None:
    """Print what training rows were compared with, and what was found in those that leave this machine."""
    compared, sent, out = found.compared, found.uploaded, console()
    if not compared.rows:
        return
    rows, prompts = count(compared.rows, "row"), count(compared.prompts, "prompt")
    clean = "" if compared.overlaps else "looked for held-out prompts, word for word and nearly, and found none: "
    out.print(f"Rows    {clean}{rows} compared with {prompts}", style="bold")
    for provider, number in sent.rows.items():
        private = any(one.provider == provider for one in sent.exposures)
        sees = "" if private else ", with no secret and no personal data that the patterns know"
        out.print(f"        {count(number, 'row')} to upload to {safe(provider)}{sees}")
    for finding in found.accepted:
        out.print(f"        accepted: {safe(finding.what)}", style="yellow")


def print_cells(prepared: Prepared) -> None:
    """Print the expanded table: one row per cell, one column per swept path."""
    plan = prepared.plan
    paths = list(dict.fromkeys(path for cell in plan.cells for path, _ in cell.cell.coordinates))
    rows = []
    for position, cell in enumerate(plan.cells):
        levels = {path: _shown(cell.cell, path, level) for path, level in cell.cell.levels.items()}
        cached = sum(key in prepared.survey.cached for key in cell.stages)
        total = len(cell.stages)
        shown = [levels.get(path, "") for path in paths]
        costs = _cell_costs(prepared, cell)
        name = "" if cell.origin is CellOrigin.SWEEP else cell.label
        rows.append((position, cell.cell_id, *shown, name, *costs, f"{cached}/{total}"))
    heads = [path.rpartition(".")[2] for path in paths]
    numeric = ("#", "low", "expected", "high", "cached")
    print_table(("#", "cell", *heads, "", *numeric[1:]), rows, numeric=numeric)


def _shown(cell: Cell, path: str, level: Level) -> str:
    """Return a level as people read it; of `all`, also how many that are."""
    found = look(cell.recipe, path) if level == ALL else level
    return f"{ALL} ({found:,})" if level == ALL and isinstance(found, int) else level_text(level)


def _cell_costs(prepared: Prepared, cell: PlannedCell) -> tuple[str, ...]:
    """Return (low, expected, high) US dollars of all that a cell needs, whether or not others need it too."""
    usd = usd_of(cell.stages, prepared.forecasts, prepared.tariff)
    return ("–",) * 3 if usd is None else tuple(map(money, usd))


def print_why(cell: PlannedCell, reasons: Sequence[StageReason]) -> None:
    """Print, stage by stage, why a cell will run."""
    out = console()
    out.print(f"{cell.cell_id}  {safe(cell.label)}", style="bold")
    changed = False
    for reason in reasons:
        out.print(f"  {reason.kind.value:9} {safe(reason.adapter)}  {_verdict(reason, inherited=changed)}")
        changed = changed or not reason.cached
        for change in reason.changes:
            out.print(f"      {change.path}: {safe(_side(change.before))} → {safe(_side(change.after))}")


def _verdict(reason: StageReason, *, inherited: bool) -> str:
    if reason.cached:
        return "has run; nothing to do"
    if not reason.compared:
        return "will run: there is no other stage of its kind to compare with"
    if reason.changes:
        return f"will run: differs from the nearest one in {reason.compared} in"
    return "will run: same settings, new input" if inherited else "will run: it has not finished yet"


def _side(text: str) -> str:
    return text if text == ABSENT else text.strip('"')
