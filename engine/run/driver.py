"""The imperative shell: plan → scheduler → executor → store, until everything has ended or something stops it.

The driver alone writes state.sqlite. A stage counts from the moment of that commit; whatever a killed run left beside
it is swept away and done again.
"""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from decimal import Decimal
from types import FrameType
from typing import TypeAlias

from engine.domain.cost import Usage, charge
from engine.domain.results import Attempt, Failure, StageResult
from engine.domain.stage import StageKind, StageState
from engine.run import lock
from engine.run.adopt import adopt, claim
from engine.run.hosts import Executor, HostLost
from engine.run.limits import BudgetGate
from engine.run.order import Ending, RunOrder, RunSummary
from engine.run.progress import Observer, Progress
from engine.run.publisher import Publisher
from engine.run.scheduler import Scheduler
from engine.run.worker import StageTask
from engine.store import artifacts
from engine.store.layout import RunDirectory
from engine.store.publish import publish
from engine.store.state import Settled, State

POLL_SECONDS = 0.25
HEARTBEAT_SECONDS = 2.0
RESUMES = "The same command resumes."
HOST_DEATHS = 2
"""A stage that is running when its host dies is tried again, until it has seen this many hosts die."""


MakeExecutor: TypeAlias = Callable[[], Executor]


def run_sweep(order: RunOrder, run: RunDirectory, make_executor: MakeExecutor, observer: Observer) -> RunSummary:
    """Run what has not run yet.

    Args:
        order: What to do, and within which limits.
        run: The run directory; made when missing, continued when there.
        make_executor: Makes the executor; not called when there is nothing to do.
        observer: Told of progress.

    Raises:
        RunLockedError: Another process drives this run directory.
        StoreError: The control plane is damaged.
        RunError: No host fits this machine.
    """
    begun = time.monotonic()
    claim(run)
    with lock.held(run), closing(State.open(run)) as state:
        cached = adopt(order, run, state, observer)
        if len(cached) == len(order.plan.stages):
            state.put_meta({"ending": Ending.COMPLETE.value})
            _publish(run, state)
            return RunSummary(Ending.NOTHING_TO_DO, 0, len(cached), 0, 0, "", time.monotonic() - begun)
        _publish(run, state)  # from now on, `query` and `status` work
        with _interrupts(observer) as interrupts, closing(make_executor()) as executor:
            loop = _Loop(order, run, state, executor, cached)
            stop = loop.run(interrupts, observer)
        state.put_meta({"ending": stop.ending.value})
        _publish(run, state)
        spent = time.monotonic() - begun
        return RunSummary(stop.ending, loop.ran, len(cached), loop.failed, loop.skipped, stop.reason, spent)


def _publish(run: RunDirectory, state: State) -> None:
    """Publish, unless the file shows all of it already; that is noted after the file is in place, never before."""
    digest = state.digest()
    if state.meta().get("published") != digest or not run.results.exists():
        publish(run)
        state.put_meta({"published": digest})


@dataclass(frozen=True, slots=True)
class _Stop:
    """Why a run ends."""

    ending: Ending
    reason: str = ""


class _Loop:
    """One run's moving parts."""

    def __init__(
        self, order: RunOrder, run: RunDirectory, state: State, executor: Executor, cached: frozenset[str]
    ) -> None:
        seconds = {key: forecast.expected.device_seconds for key, forecast in order.forecasts.items()}
        self.scheduler = Scheduler(order.plan.stages, cached, seconds)
        self._order = order
        self._run = run
        self._state = state
        self._executor = executor
        self._progress = Progress(order.plan, cached, seconds, len(executor.hosts))
        usage, usd = state.usage()
        if usd is None:  # something ran before a price was set; at today's price it counts against the cap
            usd = charge(usage, order.price) or Decimal()
        self._gate = BudgetGate(order.settings.budget, order.price, usage, usd)
        self._publisher = Publisher(run)
        self._running: dict[str, tuple[str, float]] = {}  # key -> host, started at
        self._deaths: dict[str, int] = {}
        self._next_beat = 0.0
        self.ran = self.failed = self.skipped = 0

    def run(self, interrupts: _Interrupts, observer: Observer) -> _Stop:
        """Go on until nothing is left or nothing more may start; return why it ends."""
        stop: _Stop | None = None
        try:
            while not self.scheduler.finished:
                stop = stop or self._stop(interrupts) or self._start_ready(observer)
                if not self._running:
                    break
                self._take_in(self._executor.poll(POLL_SECONDS), observer)
                if trouble := self._publisher.tick():
                    observer.note(f"could not publish, and will try again: {trouble}")
                self._tell(observer, draining=stop is not None)
        except KeyboardInterrupt:
            stop = _Stop(Ending.INTERRUPTED, f"stopped at once by a second Ctrl-C. {RESUMES}")
            self._abandon()
        finally:
            self._publisher.join()
        if stop is not None and not self.scheduler.finished:
            return stop
        return _Stop(Ending.FAILURES if self.failed else Ending.COMPLETE)

    def _tell(self, observer: Observer, *, draining: bool) -> None:
        """Tell the observer, and now and then the store, where `status` reads it."""
        usd = None if self._order.price is None else self._gate.usd
        snapshot = self._progress.snapshot(self.scheduler.counts, self._gate.spent, usd, draining=draining)
        observer.update(snapshot)
        if time.monotonic() >= self._next_beat:
            self._next_beat = time.monotonic() + HEARTBEAT_SECONDS
            beat = {"seconds_left": snapshot.seconds_left}
            self._state.put_meta({"heartbeat": json.dumps(beat)})

    def _stop(self, interrupts: _Interrupts) -> _Stop | None:
        if interrupts.count:
            return _Stop(Ending.INTERRUPTED, f"what was running has finished. {RESUMES}")
        if self._order.fail_fast and self.failed:
            return _Stop(Ending.FAILED_FAST, f"a stage failed and --fail-fast was given. {RESUMES}")
        return None

    def _start_ready(self, observer: Observer) -> _Stop | None:
        """Give every idle host a stage; return why nothing more may start, or None."""
        busy = {host for host, _ in self._running.values()}
        for host in self._executor.hosts:
            stage = None if host in busy else self.scheduler.peek(host)
            if stage is None:
                continue
            expected = self._order.forecasts[stage.key].expected
            refusal = self._gate.refusal(expected)
            if refusal:
                observer.note(f"budget: {refusal}")
                return _Stop(Ending.BUDGET, "raise the cap under run.budget, and the same command goes on.")
            self._gate.reserve(stage.key, expected)
            self.scheduler.start(stage.key)
            self._running[stage.key] = (host, time.time())
            inputs = {key: tuple(shard for _, shard in self._state.shards([key])) for key in stage.inputs}
            self._executor.submit(host, StageTask(stage, inputs))
        return None

    def _take_in(self, ended: list[Attempt | HostLost], observer: Observer) -> None:
        """Take in what has ended, and commit it in one transaction; only then may anything be built on it."""
        settled, skipped = [], {}
        for entry in ended:
            attempt = entry if isinstance(entry, Attempt) else self._lost(entry, observer)
            self._running.pop(attempt.key)
            usage = _usage(attempt)
            state = _state_after(attempt)
            settled.append(Settled(attempt, state, self._gate.settle(attempt.key, usage)))
            if state is StageState.PENDING:
                self.scheduler.release(attempt.key)
                continue
            self.ran += 1
            self.failed += state is StageState.FAILED
            for key in self.scheduler.end(attempt.key, state, attempt.host):
                skipped[key] = f"{attempt.key} failed"
                self._progress.ended(key, StageState.SKIPPED, 0.0)
            self._progress.ended(attempt.key, state, usage.device_seconds)
            if attempt.failure:
                observer.note(f"failed: {attempt.key}: {attempt.failure.error_type}: {attempt.failure.message}")
        self.skipped += len(skipped)
        if settled:
            self._state.settle(settled)
        if skipped:
            self._state.skip(skipped)
        for done in settled:
            self._release_weights(done.attempt.key)

    def _lost(self, lost: HostLost, observer: Observer) -> Attempt:
        """A dead host's stage goes back, unless it keeps killing hosts."""
        self._deaths[lost.key] = self._deaths.get(lost.key, 0) + 1
        observer.note(f"{lost.host} died and was replaced: {lost.why}")
        attempt = Attempt(lost.key, lost.host, self._running[lost.key][1], time.time(), None)
        if self._deaths[lost.key] < HOST_DEATHS:
            return attempt
        return replace(
            attempt, failure=Failure("HostDied", f"{HOST_DEATHS} hosts died running it: {lost.why}", lost.why)
        )

    def _release_weights(self, key: str) -> None:
        """Delete tuned weights once everything that needs them is done."""
        if self._order.settings.keep_weights:
            return
        for need in self._order.plan.stages[key].inputs:
            users = self.scheduler.dependants(need)
            if self._order.plan.stages[need].kind is StageKind.TUNE and all(
                self.scheduler.state(user) is StageState.DONE for user in users
            ):
                self._state.forget_artifact(need)
                artifacts.discard(self._run.artifacts / need)

    def _abandon(self) -> None:
        """Record what was running as interrupted; its hosts are about to be stopped."""
        now = time.time()
        self._state.settle(
            Settled(attempt, StageState.PENDING, self._gate.settle(key, _usage(attempt)))
            for key, (host, started) in self._running.items()
            for attempt in [Attempt(key, host, started, now, None)]
        )


def _usage(attempt: Attempt) -> Usage:
    result: StageResult | None = attempt.result
    return Usage(device_seconds=attempt.ended_at - attempt.started_at) if result is None else result.usage


def _state_after(attempt: Attempt) -> StageState:
    if attempt.result is not None:
        return StageState.DONE
    return StageState.PENDING if attempt.failure is None else StageState.FAILED


@dataclass(slots=True)
class _Interrupts:
    """Ctrl-C, counted: the first drains, the second stops."""

    count: int = 0


@contextmanager
def _interrupts(observer: Observer) -> Iterator[_Interrupts]:
    seen = _Interrupts()

    def handle(number: int, frame: FrameType | None) -> None:
        del number, frame
        seen.count += 1
        if seen.count > 1:
            raise KeyboardInterrupt
        observer.note("finishing what is running; Ctrl-C again stops at once (finished stages are safe either way)")

    previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield seen
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
