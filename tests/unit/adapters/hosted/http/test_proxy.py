"""A server on this machine is asked directly, whatever proxies the environment names: seen with a real one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import pytest

from adapters.hosted.openai.provider import OpenAIProvider
from adapters.hosted.rehearsal.standin import StandinServer
from engine.domain.conversation import Turn
from engine.domain.sweep import Account
from engine.ports.chat import ChatRequest
from engine.ports.provider import Access
from engine.ports.provider_errors import ProviderError
from engine.run.accounts.reach import unreachable

Serve = Callable[..., AbstractAsyncContextManager]  # of conftest's Canned

REQUEST = ChatRequest("m", (Turn("user", "open the vault"),), 8)
BODY = json.dumps({"choices": [{"message": {"content": "no"}}], "usage": {"prompt_tokens": 3}})
AUDIT = json.dumps({"requests": 1, "rate_limited": 0, "peak_in_flight": 1, "usd": "0.5"})
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")


def http(body: str, status: str = "200 OK") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode()


def proxied(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    for name in PROXIES:
        monkeypatch.setenv(name, url)
        monkeypatch.setenv(name.lower(), url)


async def answer(url: str) -> str:
    session = OpenAIProvider().connect(Access("lab", url, "MARKER_KEY", 5.0))
    try:
        return (await session.complete(REQUEST)).choices[0].text
    finally:
        await session.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_this_machine_is_asked_directly(host: str, canned: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    async def go() -> None:
        async with canned(http("", "502 Bad Gateway")) as proxy, canned(http(BODY), http(AUDIT)) as server:
            proxied(monkeypatch, proxy.url.removesuffix("/v1"))
            url = server.url.replace("127.0.0.1", host)
            assert await answer(url) == "no"
            audit = await asyncio.to_thread(StandinServer().audit, url)
            assert (audit.requests, str(audit.usd)) == (1, "0.5")
            assert proxy.asked == []

    asyncio.run(go())


def test_any_other_machine_is_asked_through_the_proxy(canned: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    async def go() -> bytes:
        async with canned(http("", "502 Bad Gateway")) as proxy:
            proxied(monkeypatch, proxy.url.removesuffix("/v1"))
            with pytest.raises(ProviderError):
                await answer("http://api.example.invalid/v1")
            (asked,) = proxy.asked
            return bytes(asked)

    assert asyncio.run(go()).startswith(b"POST http://api.example.invalid/v1/chat/completions ")


def test_whether_this_machine_can_be_reached_is_no_proxys_to_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    proxied(monkeypatch, "http://127.0.0.1:9")
    why = unreachable(Account(provider="hosted/openai", base_url="http://localhost:9/v1"))
    assert why is not None
    assert why.startswith("localhost:9: ")
