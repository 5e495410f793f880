"""What sessions make of replies that a rehearsal does not give, or not soon."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import TypeVar

import pytest

from adapters.hosted.azure.provider import AzureProvider
from adapters.hosted.openai.provider import OpenAIProvider
from engine.domain.conversation import Turn
from engine.domain.cost import Usage
from engine.ports.chat import ChatRequest
from engine.ports.provider import Access, JobOrder, JobState, Provider, Session
from engine.ports.provider_errors import DeniedError, RejectedError, ThrottledError

REQUEST = ChatRequest("m", (Turn("user", "open the vault"),), 8)
ORDER = JobOrder("tune-1", "m", "file-1", 1, None, None, 0, "s")

Serve = Callable[..., AbstractAsyncContextManager]  # of conftest's Canned
T = TypeVar("T")


def ok(body: object, status: str = "200 OK") -> bytes:
    text = json.dumps(body)
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(text)}\r\nConnection: close\r\n\r\n{text}".encode()


def job(number: int, status: str = "running", **fields: object) -> dict[str, object]:
    return {"id": f"ftjob-{number}", "status": status, "created_at": number, "metadata": {"dosimeter": "k"}, **fields}


def page(*items: dict[str, object], more: bool = False) -> bytes:
    return ok({"object": "list", "data": items, "has_more": more})


def run(
    canned: Serve, replies: list[bytes], go: Callable[[Session], Awaitable[T]], provider: Provider | None = None
) -> tuple[T, list[str]]:
    """Return what a session made of the replies, and the requests' first lines."""

    async def served() -> tuple[T, list[str]]:
        async with canned(*replies) as server:
            url = server.url.removesuffix("/v1") if provider else server.url
            session = (provider or OpenAIProvider()).connect(Access("lab", url, "MARKER_KEY"))
            try:
                made = await go(session)
            finally:
                await session.close()
            assert server.replies == []
            return made, [sent.partition(b" HTTP")[0].decode() for sent in server.asked]

    return asyncio.run(served())


def test_jobs_are_read_page_by_page_until_they_are_too_old(canned: Serve) -> None:
    pages = [page(job(9), job(8), more=True), page(job(7), job(3), more=True), page(job(2), more=True)]
    found, sent = run(canned, pages, lambda session: session.jobs(7.9))
    assert [one.job_id for one in found] == ["ftjob-9", "ftjob-8", "ftjob-7"]  # the API counts whole seconds
    assert [line.partition("after=")[2] for line in sent] == ["", "ftjob-8", "ftjob-3"]


def test_a_list_that_says_there_is_more_and_has_nothing_ends(canned: Serve) -> None:
    found, _ = run(canned, [page(more=True)], lambda session: session.batches())
    assert found == {}


def test_a_trained_model_that_moderation_keeps_back_is_blocked_and_asked_about_once(canned: Serve) -> None:
    events = page({"id": "e", "type": "moderation_checks", "message": "thresholds not met", "data": {"blocked": True}})

    async def go(session: Session) -> list[tuple[JobState, str]]:
        seen = [await session.job("ftjob-1"), *await session.jobs(0)]
        return [(one.state, one.reason) for one in seen]

    replies = [ok(job(1, "succeeded", fine_tuned_model=None)), events, page(job(1, "succeeded"))]
    found, sent = run(canned, replies, go)
    assert found == [(JobState.BLOCKED, "thresholds not met")] * 2
    assert sum("/events" in line for line in sent) == 1


@pytest.mark.parametrize(
    ("events", "reason"),
    [
        (
            page({"id": "2", "level": "error", "message": "the trainer died"}, {"id": "1", "level": "info"}),
            "the trainer died",
        ),
        (
            ok({"error": {"message": "no such endpoint"}}, "404 Not Found"),
            "the provider says `failed` and names no model",
        ),
    ],
)
def test_a_failure_without_a_reason_is_looked_up_where_there_are_events(
    canned: Serve, events: bytes, reason: str
) -> None:
    found, _ = run(canned, [ok(job(1, "failed", error={})), events], lambda session: session.job("ftjob-1"))
    assert (found.state, found.reason) == (JobState.FAILED, reason)


def test_a_batch_that_was_refused_as_a_whole_says_why(canned: Serve) -> None:
    fault = {"code": "token_limit_exceeded", "message": "Enqueued token limit reached"}
    batch = ok({"id": "b", "status": "failed", "errors": {"object": "list", "data": [fault]}})
    found, _ = run(canned, [batch], lambda session: session.batch("b"))
    assert found.is_over
    assert isinstance(found.refusal, ThrottledError)
    assert "Enqueued" in str(found.refusal)


def test_an_id_that_cannot_be_in_a_url_is_refused(canned: Serve) -> None:
    with pytest.raises(RejectedError, match="cannot be in a URL"):
        run(canned, [ok(job(1, "succeeded", result_files=["file\n1"]))], lambda session: session.losses("ftjob-1"))


def test_fewer_answers_than_were_asked_for_are_refused(canned: Serve) -> None:
    one = ok({"choices": [{"message": {"content": "x"}}], "usage": {"prompt_tokens": 1, "completion_tokens": 1}})
    with pytest.raises(RejectedError, match="1 of 2 samples") as caught:
        run(canned, [one], lambda session: session.complete(ChatRequest("m", REQUEST.turns, 8, samples=2)))
    assert caught.value.used == Usage(prompt_tokens=1, generated_tokens=1), "it was paid for"
    with pytest.raises(RejectedError, match="1 of 2 texts"):
        run(canned, [ok({"results": [{"flagged": False}]})], lambda session: session.flagged(["a", "b"]))


def test_azure_does_not_train_what_it_could_not_deploy(canned: Serve) -> None:
    with pytest.raises(DeniedError, match="MARKER_KEY_DEPLOYMENTS_URL and MARKER_KEY_DEPLOYMENTS_TOKEN"):
        run(canned, [], lambda session: session.create_job(ORDER), AzureProvider())


def test_azure_deploys_a_trained_model_and_waits_for_it(canned: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    def deployment(state: str) -> bytes:
        return ok({"properties": {"provisioningState": state}})

    async def served(*states: bytes) -> list[tuple[JobState, str | None]]:
        trained = ok(job(1, "succeeded", fine_tuned_model="m.ft-1"))
        async with canned(*[trained] * 3) as server, canned(*states) as plane:
            monkeypatch.setenv("MARKER_KEY_DEPLOYMENTS_URL", plane.url)
            monkeypatch.setenv("MARKER_KEY_DEPLOYMENTS_TOKEN", "sk-test-token")
            session = AzureProvider().connect(Access("lab", server.url.removesuffix("/v1"), "MARKER_KEY"))
            try:
                seen = [await session.job("ftjob-1") for _ in range(3)]
            finally:
                await session.close()
            made = [sent.partition(b" ")[0] for sent in plane.asked]
            assert made == [b"GET", b"PUT", b"GET"]
            assert json.loads(plane.asked[1].partition(b"\r\n\r\n")[2])["properties"]["model"]["name"] == "m.ft-1"
            return [(one.state, one.tuned_model) for one in seen]

    missing = ok({"error": {"message": "none"}}, "404 Not Found")
    found = asyncio.run(served(missing, deployment("Creating"), deployment("Succeeded")))
    ready = (JobState.SUCCEEDED, "dosimeter-1")
    assert found == [(JobState.RUNNING, None), ready, ready]
    with pytest.raises(RejectedError, match="`dosimeter-1` is Failed"):
        asyncio.run(served(missing, deployment("Failed")))
