"""What the driver makes of stages and hosts that end in the same moment, and of interrupts before anything runs."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from engine import plugins
from engine.domain.cost import Usage
from engine.domain.results import Attempt, Finish, Response
from engine.plugins import Kind
from engine.ports import Context, Generated, GenerateTask
from engine.run import worker
from engine.run.driver import run_sweep
from engine.run.hosts import Executor, HostLost
from engine.run.inline import NAME, InlineExecutor
from engine.run.order import Ending, RunOrder, RunSummary
from engine.run.prepare import prepare
from engine.run.worker import HostSettings
from engine.store.layout import RunDirectory
from engine.store.reader import open_results

SPEC = """\
sweep: driven
recipe: {model: standin/aligned, benchmark: "standin/policy:1", judges: [standin/rules]}
axes: {generate.system: [one, two, three]}
"""


class Watcher:
    def update(self, snapshot: object) -> None:
        del snapshot

    def note(self, text: str) -> None:
        del text


class Echo:
    revision = 2

    def generate(self, tasks: Sequence[GenerateTask], context: Context) -> Iterator[tuple[str, Generated]]:
        del context
        for task in tasks:
            made = [Response(prompt.prompt_id, 0, prompt.text, Finish.STOP, 3, 1) for prompt in task.prompts]
            yield task.key, Generated(made, Usage(device_seconds=0.1))


class Dying(InlineExecutor):
    """Hands back the first attempts and reports its own death in the same moment, once."""

    dead = False

    def poll(self, timeout: float) -> list[Attempt | HostLost]:
        ended = super().poll(timeout)
        if self.dead or not ended:
            return ended
        self.dead, self._under_way = True, None
        return [*ended, HostLost(NAME, "killed")]


@pytest.fixture
def drive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    real = plugins.adapter
    monkeypatch.setattr(plugins, "adapter", lambda kind, ref: Echo() if kind is Kind.GENERATOR else real(kind, ref))
    monkeypatch.setattr(plugins, "revision", lambda kind, ref: int(real(kind, ref).revision))
    (tmp_path / "driven.yaml").write_text(SPEC)

    def run(make: type[InlineExecutor] | Any) -> RunSummary:
        monkeypatch.setattr(Echo, "forecast", real(Kind.GENERATOR, "local/transformers").forecast, raising=False)
        prepared = prepare(tmp_path / "driven.yaml", (), tmp_path / "run")
        order = RunOrder(
            prepared.plan,
            prepared.forecasts,
            prepared.groups,
            prepared.loaded.sweep.run,
            prepared.catalogue,
            {},
            prepared.tariff,
            prepared.forecast.new,
        )
        made = lambda: make(HostSettings(tmp_path / "run", "cpu", 1, 8))  # noqa: E731 - a factory
        return run_sweep(order, RunDirectory(tmp_path / "run"), made, Watcher())

    return run


def attempts_and_rows(folder: Path) -> tuple[list[int], int]:
    with open_results(folder) as results:
        (rows,) = results.table("SELECT count(*) AS n FROM responses").to_pylist()
        found = results.table("SELECT attempts FROM v_stages WHERE kind = 'generate'").to_pylist()
    return sorted(row["attempts"] for row in found), rows["n"]


@pytest.mark.parametrize(("gather", "attempts"), [(0.0, [1, 2, 2]), (9.0, [1, 1, 1])])
def test_what_a_host_handed_back_before_it_died_counts_once(
    drive: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gather: float, attempts: list[int]
) -> None:
    monkeypatch.setattr(worker, "GATHER_SECONDS", gather)
    assert drive(Dying).ending is Ending.COMPLETE
    assert attempts_and_rows(tmp_path / "run") == (attempts, 33)


def test_an_interrupt_before_the_hosts_are_there_is_heard_at_once(drive: Any) -> None:
    before = signal.getsignal(signal.SIGINT)  # whoever else in this process may have set it

    def slowly(settings: HostSettings) -> Executor:
        while signal.getsignal(signal.SIGINT) is before:
            time.sleep(0.01)  # until the driver listens
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1.0)
        return InlineExecutor(settings)

    summary = drive(slowly)
    assert (summary.ending, summary.ran) == (Ending.INTERRUPTED, 0)
    assert drive(InlineExecutor).ending is Ending.COMPLETE
