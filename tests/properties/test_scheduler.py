"""The scheduler as a state machine: no stage before its inputs, none twice, none in the wrong company, and it always ends."""

from __future__ import annotations

from dataclasses import fields

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from engine.domain.stage import KINDS, Stage, StageKind, StageState, WorkerKind
from engine.plan.share import Groups
from engine.run.drive.scheduler import ENDED, LARGEST, Scheduler
from engine.run.slots import Slot

WORK = {kind: work(*[None] * len(fields(work))) for work, kind in KINDS.items()}
"""Work of each kind that says nothing: the scheduler asks for no more than the kind."""
SLOTS = (
    Slot("a", WorkerKind.MODEL),
    Slot("b", WorkerKind.MODEL),
    Slot("cpu", WorkerKind.CPU),
    Slot("lab 1", None, "lab", frozenset({StageKind.TUNE, StageKind.GENERATE})),
    Slot("lab 2", None, "lab"),
    Slot("all", WorkerKind.MODEL, is_all=True),
)


@st.composite
def graphs(draw: st.DrawFn) -> tuple[dict[str, Stage], Groups]:
    """Random graphs: every stage needs some of those before it, is for some worker or account, and has some company."""
    stages: dict[str, Stage] = {}
    batch_groups: dict[str, str] = {}
    checkpoints: dict[str, tuple[str, ...]] = {}
    accounts: dict[str, str] = {}
    kinds = draw(st.lists(st.sampled_from(StageKind), min_size=1, max_size=12))
    for index, kind in enumerate(kinds):
        needs = draw(st.lists(st.sampled_from([*stages]), unique=True, max_size=2)) if stages else []
        inputs = tuple((need, need) for need in needs)
        worker, is_hosted = draw(st.sampled_from(WorkerKind)), draw(st.booleans())
        group = f"{kind.value} {worker.value} {is_hosted} {draw(st.integers(0, 1))}"
        several = draw(st.integers(1, 3)) if kind is StageKind.TUNE else 1
        keys = tuple(f"{kind.value}-{index}-{at}" for at in range(several))
        for key in keys:
            stages[key] = Stage(key, "adapter", 1, WORK[kind], inputs, "{}", worker)
            batch_groups[key] = group
            if is_hosted:
                accounts[key] = "lab"
            if kind is StageKind.TUNE:
                checkpoints[key] = keys
    return stages, Groups(
        batch_groups, checkpoints, {key: found[0] for key, found in checkpoints.items()}, {}, {}, accounts
    )


class SchedulerMachine(RuleBasedStateMachine):
    @initialize(graph=graphs(), data=st.data())
    def make(self, graph: tuple[dict[str, Stage], Groups], data: st.DataObject) -> None:
        self.stages, self.groups = graph
        roots = [key for key, found in self.stages.items() if not found.needs]
        self.cached = set(data.draw(st.lists(st.sampled_from(roots), unique=True)))
        seconds = {key: data.draw(st.floats(min_value=0, max_value=10)) for key in self.stages}
        self.scheduler = Scheduler(self.stages, self.cached, seconds, self.groups, SLOTS)
        self.running: dict[str, str] = {}
        self.started: list[str] = []
        self.killers: set[str] = set()
        self.failed = False

    @rule(slot=st.sampled_from(SLOTS), allowed=st.integers(0, 6))
    def start(self, slot: Slot, allowed: int) -> None:
        if slot.name in self.running.values():
            return
        left = iter(range(allowed))
        batch = self.scheduler.take(slot, lambda _: next(left, None) is not None)
        keys = [found.key for found in batch]
        assert len(keys) <= allowed
        assert len({(found.kind, self.groups.batch_groups[found.key]) for found in batch}) <= 1
        assert all(slot.serves((found.kind, found.worker, self.groups.accounts.get(found.key))) for found in batch)
        assert all(self.scheduler.state(key) is StageState.DONE for found in batch for key in found.needs)
        assert not self.cached & set(keys)
        runs = {self.groups.checkpoints.get(key, (key,)) for key in keys}
        assert len(runs) <= LARGEST[batch[0].kind] if batch else True
        for run in runs:
            assert [key for key in keys if key in run] == [key for key in run if key in keys], (
                "checkpoints come in order"
            )
        assert len(runs) == 1 or not self.killers & set(keys), "what was there when a worker died gets no company"
        self.running |= dict.fromkeys(keys, slot.name)
        self.started += keys

    @precondition(lambda self: self.running)
    @rule(data=st.data(), state=st.sampled_from([StageState.DONE, StageState.DONE, StageState.FAILED]))
    def end(self, data: st.DataObject, state: StageState) -> None:
        key = data.draw(st.sampled_from(sorted(self.running)))
        skipped = self.scheduler.end(key, state, self.running.pop(key))
        self.failed = self.failed or state is StageState.FAILED
        assert (state is StageState.DONE) <= (not skipped)
        assert all(self.scheduler.state(entry) is StageState.SKIPPED for entry in skipped)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def lose(self, data: st.DataObject) -> None:
        worker = data.draw(st.sampled_from(sorted(self.running.values())))
        for key in [key for key, name in self.running.items() if name == worker]:
            self.scheduler.release(key)
            self.running.pop(key)
            self.started.remove(key)
            self.killers |= set(self.groups.checkpoints.get(key, (key,)))

    @invariant()
    def nothing_runs_twice(self) -> None:
        assert len(set(self.started)) == len(self.started)
        running = {key for key in self.stages if self.scheduler.state(key) is StageState.RUNNING}
        assert running == self.running.keys()

    @invariant()
    def counts_are_those_of_the_states(self) -> None:
        for (kind, state), number in self.scheduler.counts.items():
            assert number == sum(
                found.kind is kind and self.scheduler.state(key) is state for key, found in self.stages.items()
            )

    def teardown(self) -> None:
        if not hasattr(self, "scheduler"):
            return
        while not self.scheduler.finished:  # and it is never stuck
            for slot in SLOTS:
                self.start(slot, len(self.stages))
            assert self.running
            key, worker = self.running.popitem()
            self.scheduler.end(key, StageState.DONE, worker)
        states = {self.scheduler.state(key) for key in self.stages}
        assert states <= ENDED
        assert self.failed or states == {StageState.DONE}


SchedulerMachine.TestCase.settings = settings(max_examples=80, stateful_step_count=30, deadline=None)
TestScheduler = SchedulerMachine.TestCase
