"""The scheduler as a state machine: no stage before its inputs, none twice, and it always ends."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from engine.domain.stage import Binding, Stage, StageKind, StageState
from engine.run.scheduler import ENDED, Scheduler

HOSTS = ("a", "b", "c")


def stage(key: str, kind: StageKind, *inputs: str) -> Stage:
    return Stage(key, kind, "adapter", 1, "{}", inputs, Binding())


@st.composite
def graphs(draw: st.DrawFn) -> dict[str, Stage]:
    """Random layered graphs: every stage needs some of the stages one layer above."""
    stages: dict[str, Stage] = {}
    above: list[str] = []
    for depth, kind in enumerate(StageKind):
        layer = []
        for index in range(draw(st.integers(min_value=1, max_value=4))):
            inputs = draw(st.lists(st.sampled_from(above), unique=True, max_size=2)) if above else []
            key = f"{kind.value}-{depth}-{index}"
            stages[key] = stage(key, kind, *inputs)
            layer.append(key)
        above = layer
    return stages


class SchedulerMachine(RuleBasedStateMachine):
    @initialize(stages=graphs(), data=st.data())
    def make(self, stages: dict[str, Stage], data: st.DataObject) -> None:
        self.stages = stages
        roots = [key for key, found in stages.items() if not found.inputs]
        self.cached = set(data.draw(st.lists(st.sampled_from(roots), unique=True)))
        seconds = {key: data.draw(st.floats(min_value=0, max_value=10)) for key in stages}
        self.scheduler = Scheduler(stages, self.cached, seconds)
        self.running: dict[str, str] = {}
        self.started: list[str] = []
        self.failed = False

    @rule(host=st.sampled_from(HOSTS))
    def start(self, host: str) -> None:
        if host in self.running.values():
            return
        found = self.scheduler.peek(host)
        if found is None:
            return
        assert all(self.scheduler.state(key) is StageState.DONE for key in found.inputs)
        assert found.key not in self.cached
        self.scheduler.start(found.key)
        self.running[found.key] = host
        self.started.append(found.key)

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
        key = data.draw(st.sampled_from(sorted(self.running)))
        self.scheduler.release(key)
        self.running.pop(key)
        self.started.remove(key)

    @invariant()
    def nothing_runs_twice(self) -> None:
        assert len(set(self.started)) == len(self.started)
        assert self.scheduler.running == len(self.running)

    @invariant()
    def counts_are_those_of_the_states(self) -> None:
        for (kind, state), number in self.scheduler.counts.items():
            assert number == sum(
                found.kind is kind and self.scheduler.state(key) is state for key, found in self.stages.items()
            )

    @invariant()
    def it_is_never_stuck(self) -> None:
        if not self.scheduler.finished and not self.running:
            assert self.scheduler.peek("a") is not None

    def teardown(self) -> None:
        if not hasattr(self, "scheduler"):
            return
        while not self.scheduler.finished:
            if self.running:
                key, host = self.running.popitem()
                self.scheduler.end(key, StageState.DONE, host)
            self.start("a")
        states = {self.scheduler.state(key) for key in self.stages}
        assert states <= ENDED
        assert self.failed or states == {StageState.DONE}


SchedulerMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestScheduler = SchedulerMachine.TestCase
