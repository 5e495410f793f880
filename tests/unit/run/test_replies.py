"""Paid replies: what was bought is used again, and counted once, whatever was cut off and when."""

from __future__ import annotations

import stat
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.domain.conversation import Turn
from engine.domain.cost import Usage
from engine.domain.results import Attempt
from engine.ports.chat import MOST_TOKENS, ChatRequest, Choice, Completion, FinishReason
from engine.run.accounts.replies import ReplyLog, booked, forget, kept, names, stage_keys, unbooked
from engine.store.layout import RunDirectory

REQUEST = ChatRequest("m", (Turn("user", "sort: pear fig"),), 8)
LOST = Usage(possibly_billed_prompt_tokens=5, possibly_billed_generated_tokens=8)
PAID = Usage(prompt_tokens=5, cached_tokens=2, generated_tokens=3) + LOST
COMPLETION = Completion(
    (Choice('fig {"booked": 1, "replies": 1} pear\u2028\n', FinishReason.STOP),), 5, 2, 3, possibly_billed=LOST
)


def bought(run: RunDirectory, request: ChatRequest, completion: Completion) -> None:
    (name,) = names([request])
    with ReplyLog(run, "stage").open() as log:
        log.write(name, request, completion)


def found(run: RunDirectory, *requests: ChatRequest) -> list[Completion | None]:
    """Return what is there of some requests of the stage."""
    log = ReplyLog(run, "stage")
    return [log.bought.get(name) for name in names(requests)]


def test_a_reply_is_used_again_once_and_only_for_what_was_asked(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    assert not ReplyLog(run, "stage").bought
    bought(run, REQUEST, COMPLETION)
    half = ChatRequest("m", (Turn("user", "half a character \ud800"),), 8)
    assert found(run, half, replace(REQUEST, max_tokens=9), REQUEST, REQUEST) == [None, None, COMPLETION, None]
    (path,) = run.replies.iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize(("odd", "wanted"), [("1e30", MOST_TOKENS), ("-7", 0), (f"1{'0' * 400}", MOST_TOKENS)])
def test_counts_that_cannot_be_break_no_rerun(odd: str, wanted: int, tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    bought(run, REQUEST, COMPLETION)
    (path,) = run.replies.iterdir()
    path.write_text(path.read_text().replace('"tokens": [5, 2, 3]', f'"tokens": [{odd}, {odd}, {odd}]'))
    new = unbooked(run, "stage", 0)
    assert new is not None
    assert new.usage == LOST + Usage(prompt_tokens=wanted, cached_tokens=wanted, generated_tokens=wanted)
    (again,) = found(run, REQUEST)
    assert again is not None
    assert again.usage == new.usage


def ended(usage: Usage) -> Attempt:
    return Attempt("stage", "account", 0.0, 0.0, usage, None)


@pytest.mark.parametrize("said", [PAID, Usage(device_seconds=1.0)])
def test_what_is_in_the_books_is_used_again_and_not_counted_again(said: Usage, tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    bought(run, REQUEST, COMPLETION)
    assert booked(run, ended(said), 1).usage == PAID + Usage(device_seconds=said.device_seconds)
    assert (unbooked(run, "stage", 1), kept(run, "stage")) == (None, PAID)
    second = replace(REQUEST, max_tokens=9)
    bought(run, second, COMPLETION)
    assert kept(run, "stage") == PAID
    assert [again.usage for again in found(run, REQUEST, second) if again] == [Usage(), PAID]
    forget(run, ["stage", "never there"])
    assert not list(run.replies.iterdir())
    assert booked(run, ended(said), 2) == ended(said)


ENDS = st.sampled_from(["bought", "stored", "crashed between its mark and its row", "crashed in a line"])


@given(story=st.lists(ENDS, max_size=12))
def test_every_reply_is_in_the_books_once_wherever_a_run_crashes(
    story: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    run, rows, replies = RunDirectory(tmp_path_factory.mktemp("run")), list[Usage](), 0
    bought(run, REQUEST, COMPLETION)
    for what in [*story, "stored"]:
        if what == "bought":
            bought(run, REQUEST, COMPLETION)
            replies += 1
        elif what == "crashed in a line":
            bought(run, REQUEST, COMPLETION)
            (path,) = run.replies.iterdir()
            path.write_bytes(path.read_bytes()[:-9])
        else:
            new = unbooked(run, "stage", len(rows))
            attempt = booked(run, ended(Usage()), len(rows) + 1)
            assert attempt.usage == (Usage() if new is None else new.usage)
            rows += [attempt.usage] if what == "stored" else []
    assert sum(rows, Usage()) == kept(run, "stage") == sum([PAID] * (replies + 1), Usage())
    assert unbooked(run, "stage", len(rows)) is None
    assert stage_keys(run) == ["stage"]


@given(cut=st.integers(0, 400))
def test_a_file_that_was_cut_off_has_what_was_whole(cut: int, tmp_path_factory: object) -> None:
    run = RunDirectory(tmp_path_factory.mktemp("run"))  # type: ignore[attr-defined]
    requests = [replace(REQUEST, max_tokens=number) for number in range(1, 4)]
    for request in requests:
        bought(run, request, COMPLETION)
    (path,) = run.replies.iterdir()
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) - cut])
    bought(run, REQUEST, COMPLETION)  # goes on after the torn line
    *there, last = found(run, *requests, REQUEST)
    assert there == sorted(there, key=lambda completion: completion is None), "the last ones are lost first"
    assert {completion for completion in there if completion is not None} <= {COMPLETION}
    assert last == COMPLETION
