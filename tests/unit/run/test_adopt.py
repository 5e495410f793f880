"""What a killed run has bought is in the books before the next one buys anything, whatever was changed in between."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from decimal import Decimal
from pathlib import Path

import pytest

from engine.domain.conversation import Turn
from engine.domain.cost import Usage
from engine.domain.results import Attempt, StageResult
from engine.domain.stage import StageKind, StageState
from engine.ports.chat import ChatRequest, Choice, Completion, FinishReason
from engine.run.accounts.journal import JobRecord, Journal
from engine.run.accounts.replies import ReplyLog, unbooked
from engine.run.drive.adopt import adopt
from engine.run.drive.order import RunOrder
from engine.run.drive.prepare import prepare
from engine.store.layout import RunDirectory
from engine.store.state import Settled, State

SPEC = """\
sweep: adopted
recipe:
  model: hosted/openai:{model}
  benchmark: standin/policy:1
  generate: {{adapter: hosted/openai, max_new_tokens: {longest}}}
  judges: [standin/rules]
run:
  accounts:
    ours: {{provider: hosted/openai, key_env: NO_SUCH_KEY}}
"""
MODEL, OTHER = "gpt-4o-mini-2024-07-18", "gpt-4o-2024-08-06"
COMPLETION = Completion((Choice("sorted", FinishReason.STOP),), 1_000_000, 0, 1_000_000)


class Listener:
    """Keeps what a run says."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def update(self, snapshot: object) -> None:
        del snapshot

    def note(self, text: str) -> None:
        self.notes.append(text)


class Begun:
    """A run directory with its control plane, open."""

    def __init__(self, folder: Path, state: State) -> None:
        self.folder = folder
        self.run = RunDirectory(folder / "run")
        self.state = state

    def adopt(self, model: str = MODEL, longest: int = 8) -> tuple[str, list[str]]:
        """Begin a run; return the key of its answers, and what was said."""
        spec = self.folder / "adopted.yaml"
        spec.write_text(SPEC.format(model=model, longest=longest))
        ready = prepare(spec, (), self.run.root)
        listener = Listener()
        adopt(RunOrder(ready), self.run, self.state, listener)
        (key,) = [key for key, stage in ready.plan.stages.items() if stage.kind is StageKind.GENERATE]
        return key, listener.notes

    def buy(self, key: str, model: str = MODEL) -> None:
        with ReplyLog(self.run, key).open() as log:
            log.write(f"name {model}", ChatRequest(model, (Turn("user", "sort: pear fig"),), 8), COMPLETION)

    @property
    def books(self) -> list[tuple[str, int, Decimal | None]]:
        """Stage, tokens and dollars of every attempt."""
        return [(key, used.tokens, charge.usd) for key, used, charge in self.state.charges()]


@pytest.fixture
def begun(tmp_path: Path) -> Iterator[Begun]:
    with closing(State.open(RunDirectory(tmp_path / "run"))) as state:
        yield Begun(tmp_path, state)


@pytest.mark.parametrize("longest", [8, 9], ids=["the same", "changed"])
def test_replies_of_a_killed_run_are_booked_once_at_their_price(begun: Begun, longest: int) -> None:
    key, notes = begun.adopt()
    begun.buy(key)
    expected = [(key, 2_000_000, Decimal("0.75"))]
    for _ in range(2):
        notes = begun.adopt(longest=longest)[1]
        assert (begun.books, notes) == (expected, [])
    assert begun.state.stages()[key].state is StageState.PENDING
    begun.buy(key)
    begun.adopt(longest=longest)
    assert begun.books == expected * 2


def test_replies_whose_price_nothing_tells_wait_for_a_plan_that_does(begun: Begun) -> None:
    key, _ = begun.adopt()
    begun.buy(key)
    _, (note,) = begun.adopt(OTHER)
    assert "not in the ledger" in note
    assert begun.books == []
    assert begun.adopt()[1] == []
    assert [(found, usd) for found, _, usd in begun.books] == [(key, Decimal("0.75"))]


def test_replies_of_a_stage_that_is_done_are_its_rows_and_not_booked_again(begun: Begun) -> None:
    key, _ = begun.adopt()
    begun.buy(key)
    done = Attempt(key, "ours", 0.0, 1.0, Usage(prompt_tokens=1), StageResult(key, (), None))
    begun.state.settle([Settled(done, StageState.DONE, begun.state.usage()[1])])
    begun.adopt(OTHER)  # the driver died before it could delete them
    assert [tokens for _, tokens, _ in begun.books] == [1]
    assert unbooked(begun.run, key, 1) is None


@pytest.mark.parametrize(("intended_at", "is_booked"), [(0.5, True), (2.0, False)], ids=["its own", "one before it"])
def test_a_job_whose_attempt_is_in_the_ledger_is_not_counted_again(
    begun: Begun, intended_at: float, *, is_booked: bool
) -> None:
    key, _ = begun.adopt()
    journal = Journal(begun.run.jobs)
    journal.write(JobRecord(key, "ours", "hosted/openai", intended_at, "job-1", "failed"))
    failed = Attempt(key, "ours", 0.0, 1.0, Usage(train_tokens=10), None)
    begun.state.settle([Settled(failed, StageState.PENDING, begun.state.usage()[1])])
    begun.adopt()  # the driver died between the two
    record = journal.read(key)
    assert record is not None
    assert record.is_booked is is_booked
