"""The scheduler as a state machine: no stage before its inputs, none twice, none in the wrong company, and it always ends."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from engine.domain.stage import Binding, Stage, StageKind, StageState
from engine.plan.share import Groups
from engine.run.drive.scheduler import ENDED, LARGEST, Scheduler, Seat

MODEL, DESK = frozenset({StageKind.TUNE, StageKind.GENERATE}), frozenset({StageKind.SAMPLE, StageKind.JUDGE})
SEATS = (Seat("a", MODEL), Seat("b", MODEL), Seat("desk", DESK), Seat("all", frozenset(StageKind)))


def stage(key: str, kind: StageKind, *inputs: str) -> Stage:
    return Stage(key, kind, "adapter", 1, "{}", inputs, Binding())


@st.composite
def graphs(draw: st.DrawFn) -> tuple[dict[str, Stage], Groups]:
    """Random layered graphs: every stage needs some of the stages one layer above, and keeps some company."""
    stages: dict[str, Stage] = {}
    lanes: dict[str, str] = {}
    cuts: dict[str, tuple[str, ...]] = {}
    above: list[str] = []
    for depth, kind in enumerate(StageKind):
        layer = []
        for index in range(draw(st.integers(min_value=1, max_value=4))):
            inputs = draw(st.lists(st.sampled_from(above), unique=True, max_size=2)) if above else []
            lane = f"{kind.value} {draw(st.integers(0, 1))}"
            several = draw(st.integers(1, 3)) if kind is StageKind.TUNE else 1
            keys = tuple(f"{kind.value}-{depth}-{index}-{cut}" for cut in range(several))
            for key in keys:
                stages[key] = stage(key, kind, *inputs)
                lanes[key] = lane
                if kind is StageKind.TUNE:
                    cuts[key] = keys
            layer += keys
        above = layer
    return stages, Groups(lanes, cuts, {key: found[0] for key, found in cuts.items()}, {}, {})


class SchedulerMachine(RuleBasedStateMachine):
    @initialize(graph=graphs(), data=st.data())
    def make(self, graph: tuple[dict[str, Stage], Groups], data: st.DataObject) -> None:
        self.stages, self.groups = graph
        roots = [key for key, found in self.stages.items() if not found.inputs]
        self.cached = set(data.draw(st.lists(st.sampled_from(roots), unique=True)))
        seconds = {key: data.draw(st.floats(min_value=0, max_value=10)) for key in self.stages}
        self.scheduler = Scheduler(self.stages, self.cached, seconds, self.groups, SEATS)
        self.running: dict[str, str] = {}
        self.started: list[str] = []
        self.killers: set[str] = set()
        self.failed = False

    @rule(seat=st.sampled_from(SEATS), allowed=st.integers(0, 6))
    def start(self, seat: Seat, allowed: int) -> None:
        if seat.name in self.running.values():
            return
        left = iter(range(allowed))
        bundle = self.scheduler.take(seat, lambda _: next(left, None) is not None)
        keys = [found.key for found in bundle]
        assert len(keys) <= allowed
        assert len({(found.kind, self.groups.lanes[found.key]) for found in bundle}) <= 1
        assert all(found.kind in seat.kinds for found in bundle)
        assert all(self.scheduler.state(key) is StageState.DONE for found in bundle for key in found.inputs)
        assert not self.cached & set(keys)
        runs = {self.groups.cuts.get(key, (key,)) for key in keys}
        assert len(runs) <= LARGEST[bundle[0].kind] if bundle else True
        for run in runs:
            assert [key for key in keys if key in run] == [key for key in run if key in keys], "cuts come in order"
        assert len(runs) == 1 or not self.killers & set(keys), "what was there when a host died gets no company"
        self.running |= dict.fromkeys(keys, seat.name)
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
    @rule(data=st.data(), alone=st.booleans())
    def lose(self, data: st.DataObject, *, alone: bool) -> None:
        host = data.draw(st.sampled_from(sorted(self.running.values())))
        for key in [key for key, name in self.running.items() if name == host]:
            self.scheduler.release(key, alone=alone)
            self.running.pop(key)
            self.started.remove(key)
            if alone:
                self.killers |= set(self.groups.cuts.get(key, (key,)))

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

    def teardown(self) -> None:
        if not hasattr(self, "scheduler"):
            return
        while not self.scheduler.finished:  # and it is never stuck
            for seat in SEATS:
                self.start(seat, len(self.stages))
            assert self.running
            key, host = self.running.popitem()
            self.scheduler.end(key, StageState.DONE, host)
        states = {self.scheduler.state(key) for key in self.stages}
        assert states <= ENDED
        assert self.failed or states == {StageState.DONE}


SchedulerMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestScheduler = SchedulerMachine.TestCase
