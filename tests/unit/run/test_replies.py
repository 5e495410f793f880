"""Paid replies: what was bought is used again, and counted once, whatever was cut off and when."""

from __future__ import annotations

import stat
from dataclasses import replace
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from engine.domain.cost import Usage
from engine.hosted import Ask, Choice, Ending, Told, Turn
from engine.run.account.replies import book, forget, reply_log, unread
from engine.store.layout import RunDirectory

ASK = Ask("m", (Turn("user", "sort: pear fig"),), 8)
LOST = Usage(unheard_prompt_tokens=5, unheard_generated_tokens=8)
TOLD = Told((Choice('fig {"booked": true} pear\u2028\n', Ending.STOP),), 5, 2, 3, unheard=LOST)


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


def test_what_is_in_the_books_is_used_again_and_not_counted_again(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    bought(run, ASK, TOLD)
    book(run, "flow")
    second = replace(ASK, max_tokens=9)
    bought(run, second, TOLD)
    log = reply_log(run, "flow")
    assert [found.usage for ask in (ASK, second) if (found := log.taken(ask))] == [
        Usage(),
        Usage(prompt_tokens=5, cached_tokens=2, generated_tokens=3) + LOST,
    ]
    forget(run, ["flow", "never there"])
    assert not list(run.replies.iterdir())


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
