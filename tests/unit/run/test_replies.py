"""Paid replies: what was bought is used again, and counted once, whatever was cut off and when."""

from __future__ import annotations

import stat
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.domain.cost import Usage
from engine.domain.results import Attempt
from engine.ports.provider import Ask, Choice, Ending, Told, Turn
from engine.run.accounts.replies import booked, flows, forget, kept, reply_log, unbooked, unread
from engine.store.layout import RunDirectory

ASK = Ask("m", (Turn("user", "sort: pear fig"),), 8)
LOST = Usage(possibly_billed_prompt_tokens=5, possibly_billed_generated_tokens=8)
PAID = Usage(prompt_tokens=5, cached_tokens=2, generated_tokens=3) + LOST
TOLD = Told((Choice('fig {"booked": 1, "replies": 1} pear\u2028\n', Ending.STOP),), 5, 2, 3, possibly_billed=LOST)


def bought(run: RunDirectory, ask: Ask, told: Told) -> None:
    with reply_log(run, "flow").open() as log:
        log.write(ask, told)


def test_a_reply_is_used_again_once_and_only_for_what_was_asked(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    bought(run, ASK, TOLD)
    log = reply_log(run, "flow")
    assert log.taken(Ask("m", (Turn("user", "half a character \ud800"),), 8)) is None
    assert log.taken(replace(ASK, max_tokens=9)) is None
    assert log.taken(ASK) == TOLD
    assert log.taken(ASK) is None
    (path,) = run.replies.iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_named_reply_is_nobody_elses_and_an_unnamed_one_is_anybodys(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    assert not unread(run, "flow")
    named = {name: replace(TOLD, generated_tokens=tokens) for tokens, name in enumerate(("one", "two", ""))}
    with reply_log(run, "flow").open() as log:
        assert not unread(run, "flow"), "an open log holds nothing yet"
        for name, told in named.items():
            log.write(ASK, told, name)
    assert unread(run, "flow")
    log = reply_log(run, "flow")
    assert log.taken(replace(ASK, max_tokens=9), "one") is None
    assert [log.taken(ASK, name) for name in ("one", "one", "one")] == [named["one"], named[""], None]
    assert log.taken(ASK) is None
    assert log.taken(ASK, "two") == named["two"]


def ended(usage: Usage) -> Attempt:
    return Attempt("flow", "account", 0.0, 0.0, usage, None)


@pytest.mark.parametrize("said", [PAID, Usage(device_seconds=1.0)])
def test_what_is_in_the_books_is_used_again_and_not_counted_again(said: Usage, tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    bought(run, ASK, TOLD)
    assert booked(run, ended(said), 1).usage == PAID + Usage(device_seconds=said.device_seconds)
    assert (unbooked(run, "flow", 1), kept(run, "flow")) == (None, PAID)
    second = replace(ASK, max_tokens=9)
    bought(run, second, TOLD)
    assert kept(run, "flow") == PAID
    log = reply_log(run, "flow")
    assert [found.usage for ask in (ASK, second) if (found := log.taken(ask))] == [Usage(), PAID]
    forget(run, ["flow", "never there"])
    assert not list(run.replies.iterdir())
    assert booked(run, ended(said), 2) == ended(said)


ENDS = st.sampled_from(["bought", "stored", "crashed between its mark and its row", "crashed in a line"])


@given(story=st.lists(ENDS, max_size=12))
def test_every_reply_is_in_the_books_once_wherever_a_run_crashes(
    story: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    run, rows, replies = RunDirectory(tmp_path_factory.mktemp("run")), list[Usage](), 0
    bought(run, ASK, TOLD)
    for what in [*story, "stored"]:
        if what == "bought":
            bought(run, ASK, TOLD)
            replies += 1
        elif what == "crashed in a line":
            bought(run, ASK, TOLD)
            (path,) = run.replies.iterdir()
            path.write_bytes(path.read_bytes()[:-9])
        else:
            new = unbooked(run, "flow", len(rows))
            attempt = booked(run, ended(Usage()), len(rows) + 1)
            assert attempt.usage == (Usage() if new is None else new.usage)
            rows += [attempt.usage] if what == "stored" else []
    assert sum(rows, Usage()) == kept(run, "flow") == sum([PAID] * (replies + 1), Usage())
    assert unbooked(run, "flow", len(rows)) is None
    assert flows(run) == ["flow"]


@given(cut=st.integers(0, 400))
def test_a_file_that_was_cut_off_has_what_was_whole(cut: int, tmp_path_factory: object) -> None:
    run = RunDirectory(tmp_path_factory.mktemp("run"))  # type: ignore[attr-defined]
    asks = [replace(ASK, max_tokens=number) for number in range(1, 4)]
    for ask in asks:
        bought(run, ask, TOLD)
    (path,) = run.replies.iterdir()
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) - cut])
    bought(run, ASK, TOLD)  # goes on after the torn line
    log = reply_log(run, "flow")
    found = [log.taken(ask) for ask in asks]
    assert found == sorted(found, key=lambda told: told is None), "the last ones are lost first"
    assert {told for told in found if told is not None} <= {TOLD}
    assert log.taken(ASK) == TOLD
