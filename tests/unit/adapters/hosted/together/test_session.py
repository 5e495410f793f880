"""What a session at Together makes of replies that a rehearsal does not give."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import TypeVar

import pytest

from adapters.hosted.together.provider import TogetherProvider
from engine.domain.conversation import ChatRow
from engine.ports.chat import Completion
from engine.ports.provider import Access, JobState, Session, Step
from engine.ports.provider_errors import BlockedError, RejectedError

KEY = "tune-0123456789abcdef0123456789abcdef"

Serve = Callable[..., AbstractAsyncContextManager]  # of conftest's Canned
T = TypeVar("T")


def ok(body: object) -> bytes:
    text = json.dumps(body)
    return f"HTTP/1.1 200 OK\r\nContent-Length: {len(text)}\r\nConnection: close\r\n\r\n{text}".encode()


def tune(number: int, **fields: object) -> dict[str, object]:
    created = f"2026-11-22T10:00:{number:02d}.000Z"
    return {"id": f"ft-{number}", "status": "running", "created_at": created, "model": "m", **fields}


def run(canned: Serve, replies: list[bytes], go: Callable[[Session], Awaitable[T]]) -> tuple[T, list[str]]:
    """Return what a session made of the replies, and the requests' first lines."""

    async def served() -> tuple[T, list[str]]:
        async with canned(*replies) as server:
            session = TogetherProvider().connect(Access("lab", server.url, "MARKER_KEY"))
            try:
                made = await go(session)
            finally:
                await session.close()
            assert server.replies == []
            return made, [sent.partition(b" HTTP")[0].decode() for sent in server.asked]

    return asyncio.run(served())


def test_a_job_that_does_not_say_its_key_is_looked_for_in_the_list_once(canned: Serve) -> None:
    async def go(session: Session) -> list[str]:
        return [(await session.job("ft-1")).key, (await session.job("ft-1")).key]

    listed = ok({"data": [tune(2, suffix="mine"), tune(1, suffix=KEY)]})
    found, sent = run(canned, [ok(tune(1)), listed, ok(tune(1))], go)
    assert found == [KEY, KEY]
    assert sent == ["GET /v1/fine-tunes/ft-1", "GET /v1/fine-tunes", "GET /v1/fine-tunes/ft-1"]


def test_a_failed_jobs_reason_is_in_its_events(canned: Serve) -> None:
    failed = tune(1, status="error", suffix=KEY)
    events = ok({"data": [{"type": "job_error", "level": "error", "message": "out of memory"}, {"level": None}]})
    found, sent = run(canned, [ok(failed), events], lambda session: session.job("ft-1"))
    assert (found.state, found.reason) == (JobState.FAILED, "out of memory")
    assert sent[1].startswith("GET /v1/fine-tunes/ft-1/events")


def test_jobs_are_those_of_the_time_that_is_asked_for(canned: Serve) -> None:
    newest = 1795341602.9  # 2026-11-22, 10:00:02 UTC and a little
    listed = ok({"data": [tune(3), tune(1), tune(2)]})
    found, _ = run(canned, [listed], lambda session: session.jobs(newest))
    assert [job.job_id for job in found] == ["ft-3", "ft-2"]


def test_an_account_without_anything_has_empty_lists_however_they_are_written(canned: Serve) -> None:
    async def go(session: Session) -> object:
        return await session.jobs(0), await session.files(), await session.batches()

    nothing = ok({"data": None})
    assert run(canned, [nothing, nothing, nothing, ok(None)], go)[0] == ([], {}, {})


def test_losses_are_the_rows_of_training(canned: Serve) -> None:
    rows = [
        {"train/global_step": 1, "train/loss": 2.0},
        {"eval/global_step": 1, "eval/loss": 9.0},
        {"train/global_step": 2, "train/loss": None},
        {"train/global_step": 3, "train/loss": 1.0},
    ]
    found, _ = run(canned, [ok({"metrics": rows})], lambda session: session.losses("ft-1"))
    assert found == [Step(1, 2.0), Step(3, 1.0)]
    assert run(canned, [ok({"metrics": None})], lambda session: session.losses("ft-1"))[0] == []


def test_a_file_that_was_found_broken_is_not_used_again(canned: Serve) -> None:
    files = [
        {"id": "file-1", "filename": "a.jsonl", "purpose": "fine-tune", "created_at": 1, "processing_status": None},
        {"id": "file-2", "filename": "a.jsonl", "purpose": "fine-tune", "created_at": 2, "processing_status": "FAILED"},
        {"id": "file-3", "filename": "a.jsonl", "purpose": "batch-api", "created_at": 3},
    ]
    assert run(canned, [ok({"data": files})], lambda session: session.files())[0] == {"a.jsonl": "file-1"}


def test_a_batch_is_known_by_the_name_of_its_file_and_others_are_left_alone(canned: Serve) -> None:
    files = [
        {"id": "file-1", "filename": f"dosimeter-{KEY}.1.jsonl", "purpose": "batch-api"},
        {"id": "file-2", "filename": "another.jsonl", "purpose": "batch-api"},
    ]
    made = [
        {"id": "b3", "input_file_id": "file-2"},
        {"id": "b2", "input_file_id": "file-1", "created_at": "2026-11-22T10:00:02Z"},
        {"id": "b1", "input_file_id": "file-1", "created_at": "2026-11-22T10:00:01Z"},
    ]
    found, _ = run(canned, [ok({"data": files}), ok(made)], lambda session: session.batches())
    assert found == {f"{KEY}.1": "b2"}


def test_a_batch_says_why_it_was_refused_and_else_what_each_of_its_requests_got(canned: Serve) -> None:
    refused = ok({"id": "b", "status": "FAILED", "error": "blocked by our moderation system"})
    assert isinstance(run(canned, [refused], lambda session: session.batch("b"))[0].refusal, BlockedError)
    completion = {"choices": [{"message": {"content": "heron"}, "finish_reason": "eos", "index": None}]}
    good = json.dumps({"custom_id": "a", "response": {"body": completion}})
    bad = json.dumps({"custom_id": "b", "error": {"code": "invalid_model", "message": "no such model"}})
    over = ok({"id": "b", "status": "CANCELLED", "output_file_id": "file-1", "error_file_id": "file-2"})
    replies = [
        over,
        *(f"HTTP/1.1 200 OK\r\nContent-Length: {len(text)}\r\n\r\n{text}".encode() for text in (good, bad)),
    ]
    state, _ = run(canned, replies, lambda session: session.batch("b"))
    assert (state.is_over, len(state.replies)) == (True, 2)
    completion = state.replies["a"]
    assert isinstance(completion, Completion)
    assert completion.choices[0].text == "heron"
    assert isinstance(state.replies["b"], RejectedError)


def test_together_takes_one_row_and_what_only_openai_refuses() -> None:
    provider = TogetherProvider()
    assert provider.objections([ChatRow.exchange("a", "brew", "so <|fim_suffix|> it is")]) == []
    assert provider.objections([]) == ["all rows: the sample has 0, and a job needs at least 1"]
    assert provider.objections([ChatRow.exchange("a", " ", "yes")]) == ["row 1 (id a): the user turn is empty"]


def test_the_key_goes_to_together_alone(canned: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    del canned  # it puts the key into the environment
    for variable in ("OPENAI_BASE_URL", "TOGETHER_BASE_URL"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9/v1")
    session = TogetherProvider().connect(Access("lab", None, "MARKER_KEY"))
    (client, *_) = session._client._clients  # type: ignore[attr-defined] # noqa: SLF001 - where it would go, without going
    assert str(client.base_url) == f"{TogetherProvider.base_url}/"
    asyncio.run(session.close())
