"""What the driver makes of stages and hosts that end in the same moment, of interrupts, and of what was bought by then."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine import registry
from engine.domain.adapters import Kind
from engine.domain.cost import Usage
from engine.domain.results import Attempt, Finish, Response
from engine.ports import Context, Generated, GenerateTask
from engine.ports.provider import ChatRequest, Completion, Turn
from engine.run.accounts.replies import reply_log
from engine.run.drive.driver import run_sweep
from engine.run.drive.order import Ending, RunOrder, RunSummary
from engine.run.drive.prepare import prepare
from engine.run.executors import work
from engine.run.executors.inline import NAME, InlineExecutor
from engine.run.executors.work import WorkerSettings
from engine.run.executors.workers import Executor, WorkerLost
from engine.store.layout import RunDirectory
from engine.store.reader import open_results
from engine.store.state import State

SPEC = """\
sweep: driven
recipe: {model: standin/aligned, benchmark: "standin/policy:1", judges: [standin/rules]}
axes: {generate.system: [one, two, three]}
"""

HOSTED = """\
sweep: driven
recipe:
  model: hosted/openai:gpt-4o-mini-2024-07-18
  benchmark: standin/policy:1
  generate: {adapter: hosted/openai, max_new_tokens: 8}
  judges: [standin/rules]
run:
  accounts: {ours: {provider: hosted/openai, key_env: DRIVEN_KEY}}
"""
PAID = Usage(prompt_tokens=20, generated_tokens=5)


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

    def poll(self, timeout: float) -> list[Attempt | WorkerLost]:
        ended = super().poll(timeout)
        if self.dead or not ended:
            return ended
        self.dead, self._under_way = True, None
        return [*ended, WorkerLost(NAME, "killed")]


class Killed(BaseException):
    """What ends a host."""


class Buyer(Echo):
    """Buys one reply more each time, which nobody hears of, until it ends well."""

    def __init__(self, run: RunDirectory, *endings: BaseException) -> None:
        self._run, self._endings = run, list(endings)

    def generate(self, tasks: Sequence[GenerateTask], context: Context) -> Iterator[tuple[str, Generated]]:
        for task in tasks if self._endings else ():
            with reply_log(self._run, task.key).open() as log:
                log.write(ChatRequest("m", (Turn("user", str(len(self._endings))),), 8), Completion((), 20, 0, 5))
            raise self._endings.pop()
        yield from super().generate(tasks, context)


class Mortal(InlineExecutor):
    """Reports the death of its host."""

    def poll(self, timeout: float) -> list[Attempt | WorkerLost]:
        try:
            return super().poll(timeout)
        except Killed:
            return [WorkerLost(NAME, "killed")]


@pytest.fixture
def drive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    real = registry.adapter
    monkeypatch.setenv("DRIVEN_KEY", "sk-driven")
    monkeypatch.setattr(registry, "revision", lambda kind, ref: int(real(kind, ref).revision))

    def run(make: type[InlineExecutor] | Any, echo: Echo | None = None, spec: str = SPEC) -> RunSummary:
        (tmp_path / "driven.yaml").write_text(spec)
        played = echo or Echo()
        monkeypatch.setattr(
            registry, "adapter", lambda kind, ref: played if kind is Kind.GENERATOR else real(kind, ref)
        )
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
        accounts = order.settings.accounts
        made = lambda: make(WorkerSettings(tmp_path / "run", "cpu", 1, 8, accounts))  # noqa: E731 - a factory
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
    monkeypatch.setattr(work, "GATHER_SECONDS", gather)
    assert drive(Dying).ending is Ending.COMPLETE
    assert attempts_and_rows(tmp_path / "run") == (attempts, 33)


def test_an_interrupt_before_the_hosts_are_there_is_heard_at_once(drive: Any) -> None:
    before = signal.getsignal(signal.SIGINT)  # whoever else in this process may have set it

    def slowly(settings: WorkerSettings) -> Executor:
        while signal.getsignal(signal.SIGINT) is before:
            time.sleep(0.01)  # until the driver listens
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1.0)
        return InlineExecutor(settings)

    summary = drive(slowly)
    assert (summary.ending, summary.ran) == (Ending.INTERRUPTED, 0)
    assert drive(InlineExecutor).ending is Ending.COMPLETE


ENDINGS = {
    "failed": (ValueError("nobody heard of it"),),
    "interrupted": (KeyboardInterrupt(),),
    "its host died": (Killed(), Killed()),
}


@pytest.mark.slow
@pytest.mark.parametrize("how", ENDINGS)
def test_what_a_stage_bought_before_it_ended_is_in_its_books_and_not_reserved_again(
    drive: Any, tmp_path: Path, how: str
) -> None:
    run, endings = RunDirectory(tmp_path / "run"), ENDINGS[how]
    drive(Mortal, Buyer(run, *endings), HOSTED)

    def books() -> list[Usage]:
        with closing(State.peek(run)) as state:
            found = [
                replace(used, device_seconds=0.0) for key, used, _ in state.charges() if key.startswith("generate")
            ]
        return [used for used in found if used.tokens]

    assert books() == [PAID] * len(endings)
    (high,) = [
        ahead.high.tokens
        for ahead in prepare(tmp_path / "driven.yaml", (), run.root).forecasts.values()
        if ahead.high.tokens
    ]
    capped = HOSTED + f"  budget: {{tokens: {high}}}\n"
    assert drive(InlineExecutor, None, capped).ending is Ending.COMPLETE
    assert books() == [PAID] * len(endings)
