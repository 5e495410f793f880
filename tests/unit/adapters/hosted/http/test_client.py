"""One request, one try; and whatever comes back instead of a reply is one of our errors, without the key."""

from __future__ import annotations

import asyncio
import gzip
import json
import pickle
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager

import pytest

from adapters.hosted.azure.provider import AzureProvider
from adapters.hosted.http.client import MOST_BYTES
from adapters.hosted.openai.provider import OpenAIProvider
from engine.domain.conversation import Turn
from engine.ports.chat import ChatRequest, Completion
from engine.ports.provider import Access, JobOrder, Session
from engine.ports.provider_errors import DeniedError, NoReplyError, ProviderError, RejectedError, UnavailableError

KEY = "sk-test-marker-5f0c2b77"
HANG = b"hang"
REQUEST = ChatRequest("m", (Turn("user", "open the vault"),), 8)
ORDER = JobOrder("tune-1", "m", "file-1", 1, None, None, 0, "s")
ANSWER = json.dumps(
    {"choices": [{"message": {"content": "no"}}], "usage": {"prompt_tokens": 3, "completion_tokens": 1}}
)

Serve = Callable[..., AbstractAsyncContextManager]  # of conftest's Canned


def http(body: str, status: str = "200 OK", *headers: str) -> bytes:
    lines = (f"HTTP/1.1 {status}", f"Content-Length: {len(body.encode())}", "Connection: close", *headers)
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()


def connect(url: str, timeout: float = 5.0) -> Session:
    return OpenAIProvider().connect(Access("lab", url, "MARKER_KEY", timeout))


def caught(
    canned: Serve, reply: bytes, call: Callable[[Session], Awaitable[object]], timeout: float = 5.0
) -> ProviderError:
    """Return the error that a reply becomes; it was asked for once."""

    async def go() -> ProviderError:
        async with canned(reply) as server:
            session = connect(server.url, timeout)
            with pytest.raises(ProviderError) as error:
                await call(session)
            await session.close()
            assert len(server.asked) == 1
            return error.value

    found = asyncio.run(go())
    assert found.__cause__ is None
    assert found.__context__ is None
    assert KEY.encode() not in pickle.dumps(found)
    return found


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (http(ANSWER[: len(ANSWER) // 2]), "could not be read"),
        (http("<html>hello</html>"), "could not be read"),
        (http("{}"), "choices: Field required"),
        (http(ANSWER)[:-20], "broke"),
        (b"", "broke"),
        (b"\x00\xff\r\n\r\n", "broke"),
        (HANG, "no reply within"),
    ],
    ids=["truncated", "html", "empty object", "short", "closed", "garbage", "stalled"],
)
def test_a_reply_that_cannot_be_read_leaves_doubt(canned: Serve, reply: bytes, words: str) -> None:
    timeout = 0.3 if reply == HANG else 5.0
    found = caught(canned, reply, lambda session: session.complete(REQUEST), timeout)
    assert type(found) is NoReplyError
    assert words in str(found)


def test_a_body_that_does_not_end_is_not_read_to_its_end(canned: Serve) -> None:
    blank = b" " * (MOST_BYTES + 1)
    packed = gzip.compress(blank)
    plain = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + blank
    bomb = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nConnection: close\r\n\r\n" + packed
    for reply in (plain, bomb):
        found = caught(canned, reply, lambda session: session.complete(REQUEST), 30.0)
        assert type(found) is NoReplyError
        assert "longer than 64 MB" in str(found)


def test_a_server_error_leaves_doubt_about_a_job_and_none_about_an_answer(canned: Serve) -> None:
    refused = http('{"error": {"message": "oops"}}', "500 Internal Server Error")
    assert type(caught(canned, refused, lambda session: session.create_job(ORDER))) is NoReplyError
    assert type(caught(canned, refused, lambda session: session.complete(REQUEST))) is UnavailableError


def test_nobody_there_is_unavailable_and_not_in_doubt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MARKER_KEY", KEY)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"

    async def go() -> None:
        session = connect(url)
        with pytest.raises(UnavailableError, match="no connection"):
            await session.create_job(ORDER)
        await session.close()

    asyncio.run(go())


def test_a_server_that_repeats_the_key_does_not_get_it_into_the_error(canned: Serve) -> None:
    echo = http(json.dumps({"error": {"message": f"bad key {KEY}", "code": KEY}}), "401 Unauthorized")
    found = caught(canned, echo, lambda session: session.complete(REQUEST))
    assert type(found) is DeniedError
    assert KEY not in str(found)


def test_a_redirect_does_not_take_the_key_elsewhere(canned: Serve) -> None:
    async def go() -> None:
        async with canned(http(ANSWER)) as elsewhere:
            moved = http("", "307 Temporary Redirect", f"Location: {elsewhere.url}")
            async with canned(moved) as server:
                session = connect(server.url)
                with pytest.raises(RejectedError):
                    await session.complete(REQUEST)
                await session.close()
            assert elsewhere.asked == []

    asyncio.run(go())


def test_the_key_comes_from_its_variable_and_goes_only_where_the_spec_says(
    canned: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/elsewhere")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test-another")
    monkeypatch.setenv("OPENAI_ADMIN_KEY", "sk-test-admin")

    async def go() -> bytes:
        async with canned(http(ANSWER)) as server:
            session = connect(server.url)
            completion: Completion = await session.complete(REQUEST)
            assert completion.choices[0].text == "no"
            with pytest.raises(TypeError, match="cannot be pickled"):
                pickle.dumps(session)
            assert KEY not in repr(session) + repr(vars(session))
            await session.close()
            asked: bytes = server.asked[0]
            return asked

    sent = asyncio.run(go()).decode().lower()
    assert f"authorization: bearer {KEY}".lower() in sent
    assert "another" not in sent
    assert "admin" not in sent


def test_azure_gets_the_key_in_its_own_header_alone(canned: Serve) -> None:
    async def go() -> bytes:
        async with canned(http(ANSWER)) as server:
            url = server.url.removesuffix("/v1")
            session = AzureProvider().connect(Access("lab", url, "MARKER_KEY"))
            await session.complete(REQUEST)
            await session.close()
            asked: bytes = server.asked[0]
            return asked

    head = asyncio.run(go()).decode()
    assert head.startswith("POST /openai/v1/chat/completions ")
    assert f"api-key: {KEY}" in head
    assert "authorization" not in head.lower()


def test_the_other_name_of_the_longest_answer_is_tried_once_a_model(canned: Serve) -> None:
    words = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
    objection = http(json.dumps({"error": {"message": words, "code": "unsupported_parameter"}}), "400 Bad Request")

    async def go() -> list[str]:
        async with canned(objection, http(ANSWER), http(ANSWER)) as server:
            session = connect(server.url)
            await session.complete(REQUEST)
            await session.complete(REQUEST)
            await session.close()
            return [
                "max_completion_tokens" if b"max_completion_tokens" in sent else "max_tokens" for sent in server.asked
            ]

    assert asyncio.run(go()) == ["max_tokens", "max_completion_tokens", "max_completion_tokens"]


@pytest.mark.parametrize("provider", [OpenAIProvider(), AzureProvider()])
def test_no_connection_without_a_key_or_with_a_password_in_the_url(
    provider: OpenAIProvider | AzureProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MARKER_KEY", raising=False)
    with pytest.raises(DeniedError, match="MARKER_KEY"):
        provider.connect(Access("lab", "http://127.0.0.1:1/v1", "MARKER_KEY"))
    monkeypatch.setenv("MARKER_KEY", f"{KEY}\nX-Other: 1")
    with pytest.raises(DeniedError, match="is no key") as denied:
        provider.connect(Access("lab", "http://127.0.0.1:1/v1", "MARKER_KEY"))
    assert KEY not in str(denied.value)
    monkeypatch.setenv("MARKER_KEY", KEY)
    for url in (
        "http://me:secret@127.0.0.1/v1",
        "ftp://127.0.0.1/v1",
        "127.0.0.1/v1",
        "http://[::1/v1",
        "http:me:secret@127.0.0.1/v1",
    ):
        with pytest.raises(RejectedError) as refused:
            provider.connect(Access("lab", url, "MARKER_KEY"))
        assert "secret" not in str(refused.value)


def test_half_of_a_character_is_refused_before_it_is_sent(canned: Serve) -> None:
    async def go() -> None:
        async with canned() as server:
            session = connect(server.url)
            with pytest.raises(RejectedError, match="half of a character"):
                await session.complete(ChatRequest("m", (Turn("user", "\ud800"),), 8))
            await session.close()
            assert server.asked == []

    asyncio.run(go())


PROVIDERS = ("openai.provider", "azure.provider", "together.provider")


def test_planning_imports_neither_client_nor_server() -> None:
    names = [f"adapters.hosted.{name}" for name in ("models", "answering", "tuning", *PROVIDERS)]
    script = f"import sys, {', '.join(names)}; sys.exit(bool({{'httpx2', 'starlette', 'urllib.request'}} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", script], check=False, timeout=60).returncode == 0
