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
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import TypeAlias

from engine.domain.cost import Usage
from engine.domain.plan import Plan
from engine.domain.results import Attempt, Failure
from engine.domain.stage import Stage, StageState, WorkerKind, artifact_users, artifacts_of
from engine.ports.provider_errors import BlockedError
from engine.run.accounts import replies
from engine.run.accounts.journal import Journal
from engine.run.drive import lock
from engine.run.drive.adopt import adopt, claim
from engine.run.drive.batches import Batches
from engine.run.drive.handle import ExecutorHandle
from engine.run.drive.interrupts import Interrupts, listening
from engine.run.drive.limits import BudgetGate
from engine.run.drive.order import Ending, RunOrder, RunSummary
from engine.run.drive.progress import Observer, Progress
from engine.run.drive.publisher import Publisher
from engine.run.drive.scheduler import Scheduler
from engine.run.drive.shift import Shift
from engine.run.executors.workers import Executor, WorkerLost
from engine.store import artifacts
from engine.store.layout import RunDirectory
from engine.store.publish import refresh
from engine.store.state import Settled, State

POLL_SECONDS = 0.25
HEARTBEAT_SECONDS = 2.0
RESUMES = "The same command resumes."
WORKER_DEATHS = 2
"""A stage that is running when its worker dies is tried again, alone, until it has seen this many workers die."""


MakeExecutor: TypeAlias = Callable[[], Executor]


def run_sweep(order: RunOrder, run: RunDirectory, make_executor: MakeExecutor, observer: Observer) -> RunSummary:
    """Run what has not run yet.

    Args:
        order: What to do, and within which limits.
        run: The run directory; made when missing, continued when there.
        make_executor: Makes the executor, beside the first preparations; not called when nothing was to do as planned.
        observer: Completion of progress.

    Raises:
        RunLockedError: Another process drives this run directory.
        StoreError: The control plane is damaged.
        RunError: No worker fits this machine.
    """
    begun = time.monotonic()
    claim(run)
    with lock.held(run), closing(State.open(run)) as state, ExitStack() as workers:
        handle = workers.enter_context(ExecutorHandle(make_executor))
        if order.ahead:
            handle.start()
        cached = adopt(order, run, state, observer)
        if len(cached) == len(order.plan.stages):
            state.put_meta({"ending": Ending.COMPLETE.value})
            _publish(run, state)
            return RunSummary(Ending.NOTHING_TO_DO, 0, len(cached), 0, 0, "", time.monotonic() - begun)
        _publish(run, state)  # from now on, `query` and `status` work
        tally, stop = _Tally(), _Stop(Ending.INTERRUPTED, f"nothing had begun. {RESUMES}")
        with listening(observer) as interrupts:
            if (executor := _arrived(handle, interrupts)) is not None:
                loop = _Loop(order, run, state, executor, cached, tally)
                stop = loop.run(interrupts, observer)
                loop.abandon(workers)
        handle.stop()
        state.put_meta({"ending": stop.ending.value})
        _publish(run, state)
        seconds = time.monotonic() - begun
        return RunSummary(stop.ending, tally.ran, len(cached), tally.failed, tally.skipped, stop.reason, seconds)


def _arrived(handle: ExecutorHandle, interrupts: Interrupts) -> Executor | None:
    """Wait for the executor; None when somebody interrupts meanwhile."""
    coming = handle.start()
    while not wait([coming], POLL_SECONDS).done:
        if interrupts.count:
            return None
    return handle.get()


def _publish(run: RunDirectory, state: State) -> None:
    """Publish, unless the file is whole and shows all of it already."""
    refresh(run, state)


@dataclass(frozen=True, slots=True)
class _Stop:
    """Why a run ends."""

    ending: Ending
    reason: str = ""


@dataclass(slots=True)
class _Tally:
    """Stages that ended in this run, those of them that failed, and those skipped because of it."""

    ran: int = 0
    failed: int = 0
    skipped: int = 0


class _Loop:
    """One run's moving parts."""

    def __init__(
        self,
        order: RunOrder,
        run: RunDirectory,
        state: State,
        executor: Executor,
        cached: frozenset[str],
        tally: _Tally,
    ) -> None:
        seconds = {key: forecast.expected.device_seconds for key, forecast in order.forecasts.items()}
        self.scheduler = Scheduler(order.plan.stages, cached, seconds, order.groups, executor.slots)
        self._order = order
        self._run = run
        self._state = state
        self._executor = executor
        workers = sum(slot.worker is WorkerKind.MODEL for slot in executor.slots)
        hosted = {key: order.forecasts[key].expected.tokens for key in order.groups.accounts}
        self._progress = Progress(order.plan, cached, seconds, workers, hosted)
        self._gate = _gate(order, state)
        self._publisher = Publisher(run)
        self._busy: dict[str, Shift] = {}  # by slot
        self._batches = Batches(order, state, cached)
        self._users = artifact_users(order.plan.stages)
        self._deaths: dict[str, int] = {}
        self._attempts = Counter(key for key, _, _ in state.charges())
        self._next_beat = 0.0
        self._baselines = order.plan.counts.baselines
        self._shown = False  # whether a finished tuned cell of this run has been published, or is about to be
        self._tally = tally

    def run(self, interrupts: Interrupts, observer: Observer) -> _Stop:
        """Go on until nothing is left, nothing more may start, or everything is to stop at once; return why it ends."""
        stop: _Stop | None = None
        try:
            while not self.scheduler.finished:
                stop = stop or self._stop(interrupts) or self._start_ready(observer)
                if not self._busy:
                    break
                ended = self._executor.poll(POLL_SECONDS)
                with interrupts.put_off():  # what has ended is recorded whole, or not at all
                    self._take_in(ended, observer)
                if self._progress.finished > self._baselines and not self._shown:
                    self._publisher.hasten()
                    self._shown = True
                if trouble := self._publisher.tick():
                    observer.note(f"could not publish, and will try again: {trouble}")
                self._tell(observer, draining=stop is not None)
        except KeyboardInterrupt:
            stop = _Stop(Ending.INTERRUPTED, f"stopped at once by a second Ctrl-C. {RESUMES}")
        finally:
            self._publisher.join()
        if stop is not None and not self.scheduler.finished:
            return stop
        return _Stop(Ending.FAILURES if self._tally.failed else Ending.COMPLETE)

    def _tell(self, observer: Observer, *, draining: bool) -> None:
        """Tell the observer, and now and then the store, where `status` reads it."""
        usd = self._gate.usd if self._order.tariff.is_known else None
        snapshot = self._progress.snapshot(self.scheduler.counts, self._gate.spent, usd, draining=draining)
        observer.update(snapshot)
        if time.monotonic() >= self._next_beat:
            self._next_beat = time.monotonic() + HEARTBEAT_SECONDS
            beat = {"seconds_left": snapshot.seconds_left}
            self._state.put_meta({"heartbeat": json.dumps(beat)})

    def _stop(self, interrupts: Interrupts) -> _Stop | None:
        if interrupts.count:
            return _Stop(Ending.INTERRUPTED, f"what was running has finished. {RESUMES}")
        if self._order.fail_fast and self._tally.failed:
            return _Stop(Ending.FAILED_FAST, f"a stage failed and --fail-fast was given. {RESUMES}")
        return None

    def _start_ready(self, observer: Observer) -> _Stop | None:
        """Give every idle slot a batch; return why nothing more may start, or None."""
        refusals: list[str] = []

        def admits(stage: Stage) -> bool:
            ahead = self._order.forecasts[stage.key]
            # A provider's bill cannot be stopped half-way, so that all that it may come to is held back.
            is_hosted = stage.key in self._order.groups.accounts
            most = ahead.high - replies.kept(self._run, stage.key) if is_hosted else ahead.expected
            if refusal := self._gate.refusal(stage.key, most):
                refusals.append(refusal)
                return False
            self._gate.reserve(stage.key, most)
            return True

        for slot in self._executor.slots:
            if slot.name in self._busy:
                continue
            stages = self.scheduler.take(slot, admits)
            if stages:
                is_local = stages[0].key not in self._order.groups.accounts
                self._busy[slot.name] = Shift(dict.fromkeys(stage.key for stage in stages), is_local)
                self._executor.submit(slot.name, self._batches.batch(slot, stages))
            if refusals:
                observer.note(f"budget: {refusals[0]}")
                return _Stop(Ending.BUDGET, "raise the cap under run.budget, and the same command goes on.")
        return None

    def _take_in(self, ended: list[Attempt | WorkerLost], observer: Observer) -> None:
        """Take in what has ended, and commit it in one transaction; only then may anything be built on it."""
        settled: list[Settled] = []
        skipped: dict[str, str] = {}
        for entry in ended:  # one after another: a worker may have handed back a stage and died in the same moment
            attempts = [entry] if isinstance(entry, Attempt) else self._cut_short(entry, observer)
            settled += [self._settled(attempt, skipped, observer) for attempt in attempts]
        self._busy = {slot: shift for slot, shift in self._busy.items() if shift.open}
        self._tally.skipped += len(skipped)
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
        settled = Settled(attempt, state, self._gate.settle(attempt.key, attempt.usage))
        if state is StageState.PENDING:
            self.scheduler.release(attempt.key, alone=True)
            return settled
        self._tally.ran += 1
        self._tally.failed += state is StageState.FAILED
        for key in self.scheduler.end(attempt.key, state, attempt.host):
            skipped[key] = f"{attempt.key} {'was blocked' if state is StageState.BLOCKED else 'failed'}"
            self._progress.ended(key, StageState.SKIPPED, 0.0)
        self._progress.ended(attempt.key, state, attempt.usage.device_seconds)
        if attempt.failure:
            observer.note(told(self._order.plan, attempt.key, state, attempt.failure))
        return settled

    def _cut_short(self, lost: WorkerLost, observer: Observer) -> list[Attempt]:
        """A dead worker's stages go back, unless they keep killing workers."""
        observer.note(f"{lost.worker} died and was replaced: {lost.why}")
        self._batches.forget(lost.worker)
        shift = self._busy.get(lost.worker)
        attempts = []
        for attempt in shift.cut_short(lost.worker) if shift else ():
            self._deaths[attempt.key] = self._deaths.get(attempt.key, 0) + 1
            if self._deaths[attempt.key] >= WORKER_DEATHS:
                what = f"{WORKER_DEATHS} workers died running it: {lost.why}"
                attempts.append(replace(attempt, failure=Failure("WorkerDiedError", what, lost.why)))
            else:
                attempts.append(attempt)
        return attempts

    def _booked(self, attempt: Attempt) -> Attempt:
        """Return an attempt with all that was bought for it, however it ended."""
        self._attempts[attempt.key] += 1
        if attempt.result is not None or attempt.key not in self._order.groups.accounts:
            return attempt
        return replies.booked(self._run, attempt, self._attempts[attempt.key])

    def _book(self, ended: Mapping[str, Usage]) -> None:
        """Forget the replies that are rows now, and note which jobs are in the books: whoever finds those does not count them."""
        for key in ended.keys() & self._order.groups.accounts.keys():
            is_done = self.scheduler.state(key) is StageState.DONE
            if is_done:
                replies.forget(self._run, [key])
            if is_done or ended[key].tokens:
                Journal(self._run.jobs).book(key)

    def _clear_away(self, keys: Mapping[str, Usage]) -> None:
        """Delete tuned weights once everything that needs them is done, and the state of finished training runs."""
        self._book(keys)
        if self._order.settings.keep_weights:
            return
        groups = self._order.groups
        for key in keys:
            for read in artifacts_of(self._order.plan.stages[key], self._order.plan.stages):
                if all(self.scheduler.state(user) is StageState.DONE for user in self._users[read]):
                    self._state.forget_artifact(read)
                    artifacts.discard(self._run.artifacts / read)
            checkpoints = groups.checkpoints.get(key, ())
            if checkpoints and all(self.scheduler.state(other) is StageState.DONE for other in checkpoints):
                artifacts.discard(artifacts.training_state(self._run, groups.runs[key]))

    def abandon(self, workers: ExitStack) -> None:
        """Stop the workers if any still runs something, and then record it as interrupted, with all that was bought for it."""
        if not self._busy:
            return
        workers.close()  # nobody writes a reply any more
        cut = [self._booked(attempt) for slot, shift in self._busy.items() for attempt in shift.cut_short(slot)]
        self._state.settle(
            Settled(attempt, StageState.PENDING, self._gate.settle(attempt.key, attempt.usage)) for attempt in cut
        )


def _gate(order: RunOrder, state: State) -> BudgetGate:
    """Count what was spent; what ran before a price was set counts at today's price."""
    gate = BudgetGate(order.settings.budget, order.tariff.charge, Usage(), Decimal())
    for key, used, known in state.charges():
        charge = order.tariff.charge(key, used) if None in (known.usd, known.possibly_billed_usd) else known
        gate.spent += used
        gate.usd += charge.usd or Decimal()
        gate.possibly_billed_usd += charge.possibly_billed_usd or Decimal()
    return gate


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
