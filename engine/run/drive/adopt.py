"""Makes a run directory ready for a plan: files, cells, prompts; and sweeps away what a killed run left."""

from __future__ import annotations

import hashlib
from collections import Counter

from engine.domain.cost import Usage
from engine.domain.errors import StoreError
from engine.domain.results import Attempt
from engine.domain.stage import StageKind, StageState, artifacts_of
from engine.plan.tariff import bought
from engine.run.accounts import replies
from engine.run.accounts.journal import Journal
from engine.run.drive.order import RunOrder
from engine.run.drive.prepare import Prepared
from engine.run.drive.progress import Observer
from engine.run.drive.resume import survey_state
from engine.store import artifacts, shards
from engine.store.layout import RunDirectory, write_text
from engine.store.state import Settled, State


def claim(run: RunDirectory) -> None:
    """Make the run directory, or make sure that what is there is one of ours: nothing of anybody else's is touched.

    Raises:
        StoreError: When it is a file, or a folder that holds something and is no run directory.
    """
    todo = "choose another --out"
    if "?" in str(run.root.resolve()):  # it would take the rest of the path for options
        raise StoreError("DuckDB cannot write to a path with a question mark in it", where=str(run.root), todo=todo)
    if run.root.exists() and not run.root.is_dir():
        raise StoreError("the run directory would be a file", where=str(run.root), todo=todo)
    if run.root.is_dir() and not run.state.is_file():
        ours = {run.lock.name, run.rehearsal.name}  # which are there before the state is
        strange = sorted(path.name for path in run.root.iterdir() if path.name not in ours)
        if strange:
            what = f"this folder holds something ({strange[0]}) and is no run directory: it has no {run.state.name}"
            raise StoreError(what, where=str(run.root), todo=todo)
    run.root.mkdir(parents=True, exist_ok=True, mode=0o700)


def adopt(order: RunOrder, run: RunDirectory, state: State, observer: Observer) -> frozenset[str]:
    """Adopt the plan in a run directory that is locked: forget what is damaged or unfinished, and tell the observer of it.

    Returns:
        The keys of the stages that need not run.
    """
    _refuse_mixture(order, run, state)
    for name, text in order.files.items():
        write_text(run.root / name, text)
    ready = order.prepared
    state.adopt(ready.plan, ready.groups.accounts)
    state.put_meta(_facts(order))
    _book_replies(ready, run, state, observer)
    trained, jobs = state.trained(), Journal(run.jobs)
    for job in jobs.records():  # a kill may have come between an attempt's commit and this note of it
        if not job.is_booked and trained.get(job.key, 0.0) > job.intended_at:
            jobs.book(job.key)
    found = survey_state(run, state, ready.plan)
    if found.damaged:
        noun = "stage has" if len(found.damaged) == 1 else "stages have"
        observer.note(f"{len(found.damaged)} finished {noun} damaged files and will run again")
    touched = {key for key, stage in state.stages().items() if stage.state is not StageState.PENDING}
    state.reset(touched & ready.plan.stages.keys() - found.cached)
    _keep_prompts(ready, run, state)
    shards.sweep_orphans(run, frozenset(shard.path for _, shard in state.shards()))
    _sweep_weights(ready, run, state, found.cached)
    return found.cached


def _book_replies(ready: Prepared, run: RunDirectory, state: State, observer: Observer) -> None:
    """Put into the ledger what a killed run has bought, as interrupted attempts, before anything more may be bought."""
    left = replies.stage_keys(run)
    if not left:
        return
    stored, attempts = state.stages(), Counter(key for key, _, _ in state.charges())
    done = [key for key in left if key in stored and stored[key].state is StageState.DONE]
    replies.forget(run, done)  # their rows hold them
    unpriced = 0
    for key in left:
        new = replies.unbooked(run, key, attempts[key])
        if new is None or key not in stored:
            continue
        if (alike := _alike(ready, key, new.models)) is None:
            unpriced += 1
            continue
        interrupted = Attempt(key, ready.groups.accounts[alike], new.at, new.at, Usage(), None)
        attempt = replies.booked(run, interrupted, attempts[key] + 1)
        state.settle([Settled(attempt, stored[key].state, ready.tariff.charge(alike, attempt.usage))])
    if unpriced:
        noun = "a stage" if unpriced == 1 else f"{unpriced} stages"
        observer.note(f"replies to {noun} of earlier plans are not in the ledger: nothing in this plan has their price")


def _alike(ready: Prepared, key: str, models: frozenset[str]) -> str | None:
    """Return a stage of the plan whose price is that of another one, by the models that it asked; None where none surely is."""
    accounts, stages = ready.groups.accounts, ready.plan.stages
    if key in accounts:
        return key
    asking = [other for other in accounts if stages[other].kind is not StageKind.TUNE]
    same = [other for other in asking if all(bought(stages[other]).is_called(model) for model in models)]
    return same[0] if len({ready.tariff.price(other) for other in same}) == 1 else None


def _refuse_mixture(order: RunOrder, run: RunDirectory, state: State) -> None:
    """Keep a rehearsal's results, which are the stand-in's, apart from real ones: their keys are the same.

    Raises:
        StoreError: The run directory has results of the other sort.
    """
    meta = state.meta()
    was_rehearsal = meta.get("rehearsal") == "true"
    if "sweep" in meta and was_rehearsal != order.is_rehearsal:
        there, here = ("a rehearsal's", "real") if was_rehearsal else ("real", "a rehearsal's")
        what = f"the results in this run directory are {there}, and these would be {here}"
        raise StoreError(what, where=str(run.root), todo="choose another --out")


def _sweep_weights(ready: Prepared, run: RunDirectory, state: State, cached: frozenset[str]) -> None:
    """Delete weights that a killed run left behind, and those that nothing needs now."""
    stages, keeps = ready.plan.stages, ready.loaded.sweep.run.keep_weights
    wanted = {read for key in stages if key not in cached for read in artifacts_of(stages[key], stages)}
    keep = set()
    for key, stage in state.stages().items():
        if stage.artifact is not None:
            if key in wanted or keeps:
                keep.add(key)
            else:
                state.forget_artifact(key)
    going_on = {name for key, name in ready.groups.runs.items() if key not in cached}
    if keeps:
        going_on |= artifacts.kept_states(run)
    artifacts.sweep(run, frozenset(keep), frozenset(going_on))
    for leftover in run.root.glob(".*.tmp"):
        leftover.unlink()


def _facts(order: RunOrder) -> dict[str, str]:
    """What the results say of themselves."""
    plan, sweep = order.prepared.plan, order.prepared.loaded.sweep
    usd = sweep.run.resources.usd_per_device_hour
    return {
        "sweep": plan.sweep,
        "description": sweep.description,
        "spec_sha256": plan.spec_sha256,
        "standin": str(plan.standin or order.is_rehearsal).lower(),
        "rehearsal": str(order.is_rehearsal).lower(),
        "usd_per_device_hour": "" if usd is None else str(usd),
        "ending": "",
        "heartbeat": "{}",
    }


def _keep_prompts(ready: Prepared, run: RunDirectory, state: State) -> None:
    """Store the prompts of every benchmark once per content; the views join categories from there."""
    known = {key for key, shard in state.shards() if shard.table == "prompts" and shards.is_whole(run, shard)}
    keys = []
    for benchmark in dict.fromkeys(entry.benchmark for cell in ready.plan.cells for entry in cell.evaluations):
        pin = ready.catalogue.benchmark(benchmark).pin
        key = "prompts-" + hashlib.sha256(f"{benchmark} {pin}".encode()).hexdigest()[:16]
        keys.append(key)
        if key not in known:
            rows = shards.prompt_rows(str(benchmark), ready.catalogue.prompts(benchmark))
            state.add_shards(key, [shards.write_shard(run, "prompts", key, rows)])
    state.retain_prompts(keys)
