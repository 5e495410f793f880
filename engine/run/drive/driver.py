"""The imperative shell: plan → scheduler → executor → store, until everything has ended or something stops it.

The driver alone writes state.sqlite. A stage counts from the moment of that commit; whatever a killed run left beside
it is swept away and done again.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import wait
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeAlias

from engine.domain.cost import Usage
from engine.domain.errors import RunError
from engine.domain.plan import Plan
from engine.domain.results import Attempt, Failure
from engine.domain.stage import Stage, StageState, WorkerKind, artifact_users, artifacts_of
from engine.ports import Fit
from engine.ports.provider_errors import BlockedError
from engine.run.accounts import replies
from engine.run.accounts.journal import Journal
from engine.run.drive import lock
from engine.run.drive.adopt import adopt, claim
from engine.run.drive.batches import Batches
from engine.run.drive.handle import ExecutorHandle
from engine.run.drive.interrupts import Interrupts, listening
from engine.run.drive.limits import BudgetLimits, charged
from engine.run.drive.order import Ending, RunOrder, RunSummary
from engine.run.drive.progress import Observer, Progress
from engine.run.drive.publisher import Publisher
from engine.run.drive.scheduler import Scheduler
from engine.run.executors.workers import Ended, Executor, WorkerLost, WorkerNews
from engine.store import artifacts
from engine.store.layout import RunDirectory
from engine.store.publish import refresh
from engine.store.state import Settled, State

POLL_SECONDS = 0.25
HEARTBEAT_SECONDS = 1.0
RESUMES = "The same command resumes."
WORKER_DEATHS = 3
"""A stage that is running when its worker dies is tried again, alone, until it has seen this many workers die."""


Stop: TypeAlias = tuple[Ending, str]
"""How a run ends, and why when it ends early."""


def run_sweep(
    order: RunOrder, run: RunDirectory, make_executor: Callable[[], Executor], observer: Observer
) -> RunSummary:
    """Run what has not run yet, in a run directory that is made when missing and continued when there.

    The executor is made beside the first preparations, and not at all when nothing was to do as planned.

    Raises:
        RunLockedError: Another process drives this run directory.
        StoreError: The control plane is damaged.
        RunError: No worker fits this machine, there is no such cluster, or no worker is left on it.
    """
    begun = time.monotonic()
    lost: RunError | None = None
    claim(run)
    with lock.held(run), closing(State.open(run)) as state, ExitStack() as workers:
        handle = workers.enter_context(ExecutorHandle(make_executor))
        if order.prepared.forecast.new:
            handle.start()
        cached = adopt(order, run, state, observer)
        summary = RunSummary(Ending.INTERRUPTED, cached=len(cached), reason=f"nothing had begun. {RESUMES}")
        if len(cached) == len(order.prepared.plan.stages):
            summary.ending, summary.reason = Ending.NOTHING_TO_DO, ""
            ending = Ending.COMPLETE
        else:
            refresh(run, state)  # from now on, `query` and `status` work
            with listening(observer) as interrupts:
                if (executor := _arrived(handle, interrupts)) is not None:
                    loop = _Loop(order, run, state, executor, cached, summary)
                    lost = loop.run(interrupts, observer)
                    loop.abandon(workers)
            handle.stop()
            ending = summary.ending
        state.put_meta({"ending": ending.value})
        refresh(run, state)
        if lost is not None:
            raise lost
        summary.seconds = time.monotonic() - begun
        return summary


def _arrived(handle: ExecutorHandle, interrupts: Interrupts) -> Executor | None:
    """Wait for the executor; None when somebody interrupts meanwhile."""
    coming = handle.start()
    while not wait([coming], POLL_SECONDS).done:
        if interrupts.count:
            handle.give_up()
            return None
    return coming.result()


@dataclass(slots=True)
class _UnderWay:
    """The stage batch that a slot is running, until all of it has ended.

    Attributes:
        open: Keys of the stages that have not ended.
        holds_device: Whether its time is a device's: an account has none.
        began: When, in seconds since the epoch.
        last: When one of them ended last.
    """

    open: dict[str, None]
    holds_device: bool
    began: float = field(default_factory=time.time)
    last: float = field(default_factory=time.time)

    def end(self, attempt: Attempt) -> None:
        """Note that a stage has ended."""
        self.open.pop(attempt.key, None)
        self.last = max(self.last, attempt.ended_at)

    def cut_short(self, slot: str) -> list[Attempt]:
        """Return what has not ended as ended by force; it shares the time since something ended last."""
        now = time.time()
        held = max(0.0, now - self.last) if self.holds_device else 0.0
        usage = Usage(device_seconds=held / max(1, len(self.open)))
        return [Attempt(key, slot, self.began, now, usage, None) for key in self.open]


class _Loop:
    """One run's moving parts."""

    def __init__(
        self,
        order: RunOrder,
        run: RunDirectory,
        state: State,
        executor: Executor,
        cached: frozenset[str],
        summary: RunSummary,
    ) -> None:
        ready = order.prepared
        seconds = {key: forecast.expected.device_seconds for key, forecast in ready.forecasts.items()}
        is_packing = ready.memory.machine.device != "cpu"
        self._scheduler = Scheduler(
            ready.plan.stages, cached, seconds, ready.groups, executor.slots, is_packing=is_packing
        )
        self._order = order
        self._ready = ready
        self._run = run
        self._state = state
        self._executor = executor
        self._summary = summary
        workers = sum(slot.worker is WorkerKind.MODEL for slot in executor.slots)
        hosted = {key: ready.forecasts[key].expected.tokens for key in ready.groups.accounts}
        self._progress = Progress(ready.plan, cached, seconds, workers, hosted)
        self._limits = BudgetLimits(ready.loaded.sweep.run.budget, ready.tariff.charge)
        for used, charge in charged(state, ready.tariff):
            self._limits.add(used, charge)
        self._publisher = Publisher(run)
        self._busy: dict[str, _UnderWay] = {}  # by slot
        self._batches = Batches(ready, state, cached)
        self._users = artifact_users(ready.plan.stages)
        self._deaths: Counter[str] = Counter()
        self._halvings: Counter[str] = Counter()  # how much smaller stages are cut than planned
        self._excused: set[str] = set()  # stages whose worker was lost with its machine
        self._attempts = Counter(key for key, _, _ in state.charges())
        self._next_beat = 0.0
        self._is_draining = self._is_stopping = False  # nothing more starts; what is running was told to stop
        self._shown = False  # whether a finished tuned cell of this run has been published, or is about to be

    def run(self, interrupts: Interrupts, observer: Observer) -> RunError | None:
        """Go on until nothing is left, nothing more may start, or everything is to stop at once; note why it ends.

        Returns the error where nobody is left to do the rest.
        """
        stop: Stop | None = None
        lost: RunError | None = None
        self._executor.watch(partial(self._look, interrupts, observer))
        try:
            while not self._scheduler.finished:
                stop = stop or self._stop(interrupts) or self._start_ready(observer)
                if not self._busy and (stop or not self._executor.is_waiting):
                    break
                ended = self._executor.poll(POLL_SECONDS)
                with interrupts.put_off():  # what has ended is recorded whole, or not at all
                    self._take_in(ended, observer)
                if self._progress.finished > self._ready.plan.counts.baselines and not self._shown:
                    self._publisher.hasten()
                    self._shown = True
                if trouble := self._publisher.tick():
                    observer.note(f"could not publish, and will try again: {trouble}")
                self._is_draining = stop is not None
                self._look(interrupts, observer)
        except KeyboardInterrupt:
            stop = Ending.INTERRUPTED, f"stopped at once by a second Ctrl-C. {RESUMES}"
        except RunError as error:
            stop, lost = (Ending.INTERRUPTED, error.what), error
        finally:
            self._publisher.join()
        if stop is None or self._scheduler.finished:
            stop = Ending.FAILURES if self._summary.failed else Ending.COMPLETE, ""
        self._summary.ending, self._summary.reason = stop
        return lost

    def _look(self, interrupts: Interrupts, observer: Observer) -> None:
        """Look how far the running stages are, have them stop after a Ctrl-C, and tell."""
        if interrupts.count and not self._is_stopping:
            self._is_stopping = self._is_draining = True
            self._executor.stop()
        shares = self._executor.progress()
        running = {slot: batch.open for slot, batch in self._busy.items() if batch.holds_device}
        self._progress.reached({slot: {key: shares.get(key, 0.0) for key in open_} for slot, open_ in running.items()})
        self._tell(observer)

    def _tell(self, observer: Observer) -> None:
        """Tell the observer, and now and then the store, where `status` reads it."""
        usd = self._limits.usd if self._ready.tariff.is_known else None
        snapshot = self._progress.snapshot(self._scheduler.counts, usd, draining=self._is_draining)
        observer.update(snapshot)
        if time.monotonic() >= self._next_beat:
            self._next_beat = time.monotonic() + HEARTBEAT_SECONDS
            beat = {"seconds_left": snapshot.seconds_left, "longest": snapshot.longest}
            self._state.put_meta({"heartbeat": json.dumps(beat)})

    def _stop(self, interrupts: Interrupts) -> Stop | None:
        if interrupts.count:
            return Ending.INTERRUPTED, f"what was running has ended, or stopped where it goes on. {RESUMES}"
        if self._order.fail_fast and self._summary.failed:
            return Ending.FAILED_FAST, f"a stage failed and --fail-fast was given. {RESUMES}"
        return None

    def _start_ready(self, observer: Observer) -> Stop | None:
        """Give every idle slot a batch; where nothing runs and nothing may start, return why."""
        accounts, refusals = self._ready.groups.accounts, set[str]()

        def admits(stage: Stage) -> bool:
            ahead = self._ready.forecasts[stage.key]
            # Tokens are known at most, seconds are not.
            most = replace(ahead.high, device_seconds=ahead.expected.device_seconds)
            if (
                stage.key in accounts
            ):  # a provider's bill cannot be stopped half-way: all that it may come to is held back
                most = ahead.high - replies.kept(self._run, stage.key)
            if refusal := self._limits.reserve(stage.key, most):
                refusals.add(refusal)
            return not refusal

        for slot in self._executor.slots:
            is_idle = slot.name not in self._busy and self._executor.takes(slot.name)
            if is_idle and (stages := self._scheduler.take(slot, admits)):
                open_ = dict.fromkeys(stage.key for stage in stages)
                self._busy[slot.name] = _UnderWay(open_, stages[0].key not in accounts)
                self._executor.submit(slot.name, self._batches.batch(slot, stages, self._halvings))
        if not refusals or self._busy:  # what is running may use less than was held back for it
            return None
        observer.note(f"budget: {min(refusals)}")
        return Ending.BUDGET, "raise the cap under run.budget, and the same command goes on."

    def _take_in(self, ended: list[Ended], observer: Observer) -> None:
        """Take in what has ended, and commit it in one transaction; only then may anything be built on it."""
        settled: list[Settled] = []
        skipped: dict[str, str] = {}
        for entry in ended:  # one after another: a worker may have handed back a stage and died in the same moment
            if isinstance(entry, WorkerNews):
                observer.note(entry.text)
                continue
            attempts = [entry] if isinstance(entry, Attempt) else self._cut_short(entry, observer)
            settled += [self._settled(attempt, skipped, observer) for attempt in attempts]
        self._busy = {slot: batch for slot, batch in self._busy.items() if batch.open}
        self._summary.skipped += len(skipped)
        if settled:
            self._state.settle(settled)
        if skipped:
            self._state.skip(skipped)
        self._clear_away({done.attempt.key: done.attempt.usage for done in settled})

    def _settled(self, attempt: Attempt, skipped: dict[str, str], observer: Observer) -> Settled:
        """Count an attempt, and note which stages are skipped because of it."""
        self._busy[attempt.host].end(attempt)
        attempt = self._booked(attempt)
        state = _state_after(attempt)
        settled = Settled(attempt, state, self._limits.settle(attempt.key, attempt.usage))
        if state is StageState.PENDING:
            self._scheduler.release(attempt.key)
            return settled
        self._summary.ran += 1
        self._summary.failed += state is StageState.FAILED
        for key in self._scheduler.end(attempt.key, state, attempt.host):
            skipped[key] = f"{attempt.key} {'was blocked' if state is StageState.BLOCKED else 'failed'}"
            self._progress.ended(key, StageState.SKIPPED, 0.0)
        self._progress.ended(attempt.key, state, attempt.usage.device_seconds)
        if attempt.failure:
            observer.note(told(self._ready.plan, attempt.key, state, attempt.failure))
        return settled

    def _cut_short(self, lost: WorkerLost, observer: Observer) -> list[Attempt]:
        """A dead worker's stages go back, unless they keep killing workers; to lose its machine is held against none, once."""
        smaller = ", cut smaller, for memory did not suffice" if lost.is_out_of_memory else ""
        observer.note(f"{lost.worker} died and was replaced: {lost.why}; what it was running is tried again{smaller}")
        attempts = []
        for slot in lost.slots:
            self._batches.forget(slot)
            for attempt in self._busy[slot].cut_short(slot) if slot in self._busy else ():
                is_excused = lost.is_out_of_reach and attempt.key not in self._excused
                if is_excused:
                    self._excused.add(attempt.key)
                else:  # the first time, it is tried as it was, so that its results are those of an undisturbed run
                    fit = self._ready.memory.fits.get(attempt.key, Fit())
                    is_to_cut = lost.is_out_of_memory and self._halvings[attempt.key] < fit.cuts
                    self._halvings[attempt.key] += lost.is_out_of_memory or self._deaths[attempt.key] > 0
                    self._deaths[attempt.key] += not is_to_cut  # it is held against none that can be cut smaller
                failure = None
                if self._deaths[attempt.key] >= WORKER_DEATHS:
                    what = f"{WORKER_DEATHS} workers died running it: {lost.why}"
                    failure = Failure("WorkerDiedError", what, lost.why)
                attempts.append(replace(attempt, failure=failure))
        return attempts

    def _booked(self, attempt: Attempt) -> Attempt:
        """Return an attempt with all that was bought for it, however it ended."""
        self._attempts[attempt.key] += 1
        if attempt.result is not None or attempt.key not in self._ready.groups.accounts:
            return attempt
        return replies.booked(self._run, attempt, self._attempts[attempt.key])

    def _book(self, ended: Mapping[str, Usage]) -> None:
        """Forget the replies that are rows now, and note which jobs are in the ledger: whoever finds those does not count them."""
        for key in ended.keys() & self._ready.groups.accounts.keys():
            is_done = self._scheduler.state(key) is StageState.DONE
            if is_done:
                replies.forget(self._run, [key])
            if is_done or ended[key].tokens:
                Journal(self._run.jobs).book(key)

    def _clear_away(self, keys: Mapping[str, Usage]) -> None:
        """Delete tuned weights once everything that needs them is done, and the state of finished training runs."""
        self._book(keys)
        if self._ready.loaded.sweep.run.keep_weights:
            return
        groups = self._ready.groups
        for key in keys:
            for read in artifacts_of(self._ready.plan.stages[key], self._ready.plan.stages):
                if all(self._scheduler.state(user) is StageState.DONE for user in self._users[read]):
                    self._state.forget_artifact(read)
                    artifacts.discard(self._run.artifacts / read)
            checkpoints = groups.checkpoints.get(key, ())
            if checkpoints and all(self._scheduler.state(other) is StageState.DONE for other in checkpoints):
                artifacts.discard(artifacts.training_state(self._run, groups.runs[key]))

    def abandon(self, workers: ExitStack) -> None:
        """Stop the workers if any still runs something, and then record it as interrupted, with all that was bought for it."""
        if not self._busy:
            return
        workers.close()  # nobody writes a reply any more
        cut = [self._booked(attempt) for slot, batch in self._busy.items() for attempt in batch.cut_short(slot)]
        self._state.settle(
            Settled(attempt, StageState.PENDING, self._limits.settle(attempt.key, attempt.usage)) for attempt in cut
        )


def _state_after(attempt: Attempt) -> StageState:
    if attempt.result is not None:
        return StageState.DONE
    if attempt.failure is None:
        return StageState.PENDING
    return StageState.BLOCKED if attempt.failure.error_type == BlockedError.__name__ else StageState.FAILED


def told(plan: Plan, key: str, state: StageState, failure: Failure) -> str:
    """Say for people what failed or was blocked: the work, the cells that need it, and the cause."""
    labels = [cell.label for cell in plan.cells if key in cell.stages]
    more = {0: "", 1: " and another cell"}.get(len(labels) - 1, f" and {len(labels) - 1} more cells")
    stage = plan.stages[key]
    return (
        f"{state.value}: {stage.kind.value} by {stage.adapter} for `{labels[0]}`{more}: {failure.error_type}:"
        f" {failure.message}"
    )
