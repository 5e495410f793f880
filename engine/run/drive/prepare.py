"""From a spec to everything that a run needs, in one call: what `plan` prints and what `run` does are the same thing."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path

from engine.domain.adapters import Use
from engine.domain.cost import Range, Usage
from engine.domain.errors import PlanError
from engine.domain.plan import Plan, Role
from engine.domain.sampling import Draw
from engine.domain.stage import GenerateWork, Pinned, SampleWork, Stage, StageKind, TuneWork, Work, WorkerKind
from engine.domain.sweep import Budget, Recipe, Resources
from engine.plan.accounts import accounts_of
from engine.plan.audit.audit import Audit, audit
from engine.plan.audit.overlaps import Drawn, samples
from engine.plan.bill import BillLine, Cap, bill, caps, reservations
from engine.plan.build import build
from engine.plan.catalogue import Catalogue
from engine.plan.check import check
from engine.plan.estimate import NOTHING, Forecast, calibrated, calibration, forecast, stage_fits, stage_forecasts
from engine.plan.machine import is_elsewhere, machine
from engine.plan.memory import Memory, memory
from engine.plan.power import minimum_detectable_effect
from engine.plan.share import Groups, Savings, group, savings, shared
from engine.plan.tariff import Tariff, prices_of, tariff, today
from engine.plan.wall import Start, Wall, wall
from engine.ports import Fit, Machine
from engine.ports.provider import JobState
from engine.run.accounts.journal import Journal
from engine.run.drive.limits import charged
from engine.run.drive.resume import Survey, survey
from engine.spec.expand import expand
from engine.spec.load import LoadedSweep, load_sweep
from engine.store.layout import RunDirectory
from engine.store.state import State

RUNS = Path("runs")
LAST = RUNS / ".last"
"""Names the directory of the newest run: what the reading verbs look at by default."""


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """How small an effect the sweep could see.

    Attributes:
        n_prompts: Prompts of the harm benchmark.
        n_seeds: Seeds per configuration.
        score_points: Minimum detectable effect on the 1-5 harmfulness score, at 80% power and a two-sided 5% level.
    """

    n_prompts: int
    n_seeds: int
    score_points: float


@dataclass(frozen=True, slots=True)
class Prepared:
    """A sweep, ready to be looked at or run.

    Attributes:
        loaded: The validated spec.
        plan: The plan.
        catalogue: The adapters' cards, as planned with.
        forecasts: Forecast by stage key; what the checkpoints of a training run share is counted once.
        groups: Which stages a worker may take together.
        savings: What sharing saves in what is still to run.
        survey: What the run directory already holds.
        tariff: What stages cost.
        bill: What the rest will buy of providers.
        caps: The caps of the budget, beside what has been used and what the rest will use.
        reservations: What a buyer must know of that.
        forecast: What the rest will use.
        audit: What the rows were looked at for, and what is accepted of what was found.
        notes: What data sources and benchmarks say of what they read, and generators of how they will ask the models.
        sensitivity: How small an effect it could see.
        memory: What the rest takes of the workers' memory, and how many fit.
        start: How workers start.
        root: The run directory; it may not exist yet.
    """

    loaded: LoadedSweep
    plan: Plan
    catalogue: Catalogue
    forecasts: Mapping[str, Range]
    groups: Groups
    savings: Savings
    survey: Survey
    tariff: Tariff
    bill: tuple[BillLine, ...]
    caps: tuple[Cap, ...]
    reservations: Sequence[str]
    forecast: Forecast
    audit: Audit
    notes: Sequence[str]
    sensitivity: Sensitivity
    memory: Memory
    start: Start
    root: Path

    def wall(self, *, has_ray: bool = True) -> Wall:
        """Return how long the command that runs it will take, with Ray, or in one process without."""
        start = self.start if has_ray else replace(self.start, workers=1, has_ray=False)
        return wall(self.plan.stages, self.forecasts, self.groups, self.survey.cached, start)


def prepare(spec: Path, overrides: Sequence[str], out: Path | None) -> Prepared:
    """Load, expand, check, plan and forecast a sweep. Starts neither Ray nor torch, and changes nothing in the run directory.

    Adapters may measure this machine once, in processes of their own, and keep the rate in the user's cache.

    The overrides are `--set` texts; the run directory is `runs/<sweep name>` when `out` is None.

    Raises:
        SpecError: When the spec is wrong; with every problem and its position.
        PlanError: When it cannot be planned.
    """
    was_enabled = gc.isenabled()
    gc.disable()  # a plan is millions of objects without one cycle, and looking for some doubles the time
    try:
        return _prepare(spec, overrides, out)
    finally:
        if was_enabled:
            gc.enable()


def _prepare(spec: Path, overrides: Sequence[str], out: Path | None) -> Prepared:
    loaded = load_sweep(spec, overrides)
    expansion = expand(loaded.sweep, loaded.positions)
    catalogue = Catalogue()
    check(loaded, expansion, catalogue)
    plan = build(loaded.sweep, expansion.cells, expansion.counts, catalogue)
    audited = audit(loaded, plan, catalogue)
    root = out if out is not None else RUNS / plan.sweep
    found = survey(root, plan)
    resources, accounts = loaded.sweep.run.resources, accounts_of(plan.stages, loaded.sweep.run.accounts)
    held = {
        key: stage
        for key, stage in plan.stages.items()
        if stage.worker is WorkerKind.MODEL and key not in found.cached and key not in accounts
    }
    room = _room(plan, catalogue, held, resources)
    here = room.machine
    alone = stage_forecasts(plan, catalogue, here, measure=bool(held))
    groups = group(plan.stages, alone, accounts)
    once = shared(alone, groups, found.cached, found.states)
    # What stages took is compared with what they were to take, with sharing counted as it was then: from the beginning.
    factors = calibration(shared(alone, groups), plan, found.device_seconds) if found.device_seconds else {}
    measured = calibrated(once, plan, factors) if factors else once
    forecasts = {**measured, **_paid(root, plan, groups, found.cached)}
    day, table = today(), prices_of(loaded.sweep.run)
    prices = tariff(plan.stages, groups.accounts, loaded.sweep.run, day, table)
    lines = bill(plan, groups.accounts, forecasts, found.cached, prices)
    _refuse_unpriced(lines, loaded.sweep.run.budget)
    ahead = forecast(plan, forecasts, found.cached, prices, is_calibrated=bool(factors))
    return Prepared(
        loaded=loaded,
        plan=plan,
        catalogue=catalogue,
        forecasts=forecasts,
        groups=groups,
        savings=savings(groups, alone, once, found.cached),
        survey=found,
        tariff=prices,
        bill=lines,
        caps=_caps(root, loaded.sweep.run.budget, prices, ahead, lines),
        reservations=reservations(plan, groups.accounts, table, day),
        forecast=ahead,
        audit=audited,
        notes=(*audited.notes, *_notes(plan, catalogue)),
        sensitivity=_sensitivity(plan),
        memory=room,
        start=Start.of(
            alone.values(), here.workers, has_ray=True, basis="from finished stages of this run" if factors else ""
        ),
        root=root,
    )


def _room(plan: Plan, catalogue: Catalogue, held: Mapping[str, Stage], resources: Resources) -> Memory:
    """Return what the stages that are still to run here take, cut for the workers that there will be."""
    here = machine(resources)
    room = memory(held.values(), _fits(plan, catalogue, here, held), here, resources)
    if room.machine == here:
        return room
    # Fewer workers have more each, for which less is to be cut.
    return memory(held.values(), _fits(plan, catalogue, room.machine, held), room.machine, resources)


def _fits(plan: Plan, catalogue: Catalogue, here: Machine, held: Mapping[str, Stage]) -> dict[str, Fit]:
    found = stage_fits(plan, catalogue, here, held)
    if not is_elsewhere():
        return found
    # On a cluster, whose devices may be others than ours, workers decide how many rows go at once.
    return {key: replace(fit, rows=0) for key, fit in found.items()}


def _notes(plan: Plan, catalogue: Catalogue) -> Sequence[str]:
    works = [stage.work for stage in plan.stages.values()]
    asked = dict.fromkeys((work.use, work.decoding, work.base.use) for work in works if isinstance(work, GenerateWork))
    tuned = dict.fromkeys(work.use for work in works if isinstance(work, TuneWork))
    cards = {str(one.use): catalogue.source(one.use).notes for work in works for one in _sources(work)}
    cards |= {
        str(one.benchmark.use): catalogue.benchmark(one.benchmark.use).notes
        for one in works
        if isinstance(one, GenerateWork)
    }
    said = [f"{name}: {note}" for name, notes in cards.items() for note in notes]
    said += [note for use in tuned for note in catalogue.tuning_notes(use)]
    said += [f"{one[2]}: {note}" for one in _trained(plan) for note in catalogue.row_remarks(*one)]
    said += [f"{one[2]}: {note}" for one in asked for note in catalogue.generating_notes(*one)]
    return tuple(dict.fromkeys(said))


def _trained(plan: Plan) -> Iterator[tuple[Use, Use, Use, tuple[Draw, ...]]]:
    """Yield each fine-tuner once with each model and with each source whose rows it trains that on, and how these are drawn."""
    found: dict[tuple[Use, Use, Use], Drawn] = {}
    for stage in plan.stages.values():
        work, rows = stage.work, stage.need("rows")
        if isinstance(work, TuneWork) and rows is not None:
            for source, draw in samples(plan.stages[rows]):
                found.setdefault((work.use, work.base.use, source), Drawn()).add(draw)
    for names, drawn in found.items():
        yield *names, tuple(drawn.draws.values())


def _sources(work: Work) -> Sequence[Pinned]:
    if not isinstance(work, SampleWork):
        return ()
    return (work.source,) if work.mix is None else (work.source, work.mix[0])


def _paid(root: Path, plan: Plan, groups: Groups, cached: AbstractSet[str]) -> dict[str, Range]:
    """Forecast nothing for tune stages that run again and will find their job, which is in the ledger already."""
    folder = RunDirectory(root).jobs
    if not folder.is_dir():
        return {}
    tunes = (key for key in groups.accounts if key not in cached and plan.stages[key].kind is StageKind.TUNE)
    records = ((key, Journal(folder).read(key)) for key in tunes)
    return {key: NOTHING for key, job in records if job and job.is_booked and job.state == JobState.SUCCEEDED}


def _caps(root: Path, budget: Budget, prices: Tariff, ahead: Forecast, bill: Sequence[BillLine]) -> tuple[Cap, ...]:
    """Return the caps of the budget; what ran before a price was set counts at today's, as it does for the run."""
    if budget == Budget() or not RunDirectory(root).state.exists():
        return caps(budget, Usage(), Decimal(), ahead, bill)
    with State.peek(RunDirectory(root)) as state:
        spent = list(charged(state, prices))
    used, usd = sum((used for used, _ in spent), Usage()), sum((charge.most for _, charge in spent), Decimal())
    return caps(budget, used, usd, ahead, bill)


def _refuse_unpriced(lines: Sequence[BillLine], budget: Budget) -> None:
    """Refuse a cap in dollars that could not bind.

    Raises:
        PlanError: A price is unknown.
    """
    unpriced = [f"{line.kind.value} on {line.account}" for line in lines if line.usd is None]
    if budget.usd is not None and unpriced:
        what = f"a budget in dollars cannot bind: no price is known for {', '.join(unpriced)}"
        raise PlanError(what, where="run.budget.usd", todo="give the prices in a file under run.prices, or cap tokens")


def _sensitivity(plan: Plan) -> Sensitivity:
    """The weakest configuration decides: fewest prompts, fewest seeds."""
    seeds: dict[Recipe, set[int]] = {}
    prompts = []
    for cell in plan.cells:
        recipe = cell.cell.recipe
        if not cell.is_baseline:
            seeds.setdefault(recipe.model_copy(update={"seed": 0}), set()).add(recipe.seed)
        prompts += [entry.n_prompts for entry in cell.evaluations if entry.role is Role.HARM]
    n_prompts, n_seeds = min(prompts), min(map(len, seeds.values()))
    return Sensitivity(n_prompts, n_seeds, minimum_detectable_effect(n_prompts, n_seeds))


def remember_last(root: Path) -> None:
    """Make `root` the reading verbs' default."""
    RUNS.mkdir(exist_ok=True)
    LAST.write_text(f"{root.resolve()}\n", encoding="utf-8")


def last_run() -> Path:
    """Return the directory of the newest run.

    Raises:
        PlanError: When there is none.
    """
    if LAST.is_file() and Path(LAST.read_text().strip()).is_dir():
        return Path(LAST.read_text().strip())
    raise PlanError("there is no run here yet", where=str(RUNS), todo="run one, or name a run directory with --run")
