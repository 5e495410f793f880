"""A server that answers what it is told to, over a real socket: for replies that no well-behaved server gives."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest

KEY = "sk-test-marker-5f0c2b77"

HANG = b"hang"
"""In place of a reply: nothing at all, until the client has gone."""


class Canned:
    """Gives one reply a request, in order, and keeps what was asked."""

    def __init__(self, replies: list[bytes]) -> None:
        self.replies = replies
        self.asked: list[bytes] = []
        self.url = ""
        self.serving: set[asyncio.Task[None] | None] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.serving.add(asyncio.current_task())
        head = await reader.readuntil(b"\r\n\r\n")
        sizes = [line.split(b":")[1] for line in head.splitlines() if line.lower().startswith(b"content-length")]
        self.asked.append(head + await reader.readexactly(int(sizes[0]) if sizes else 0))
        reply = self.replies.pop(0)
        if reply == HANG:
            await reader.read()
        writer.write(reply if reply != HANG else b"")
        writer.close()
        await writer.wait_closed()


Serve = Callable[..., AbstractAsyncContextManager[Canned]]


@pytest.fixture
def canned(monkeypatch: pytest.MonkeyPatch) -> Serve:
    """Serves canned replies; the environment has a key."""
    monkeypatch.setenv("MARKER_KEY", KEY)

    @asynccontextmanager
    async def served(*replies: bytes) -> AsyncIterator[Canned]:
        one = Canned(list(replies))
        server = await asyncio.start_server(one.serve, "127.0.0.1", 0)
        one.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        async with server:
            yield one
            await asyncio.gather(*(task for task in one.serving if task))

    return served
