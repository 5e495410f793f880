"""Dosimeter: one process owns the account's quota; each host is a process that hands its calls to it over a socket.

    python benchmarks/quota_peers/dosimeter.py URL CALLS [--hosts 8]

Prints what it cost, as JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import pickle
import struct
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from adapters.hosted.openai.provider import OpenAIProvider
from engine.domain.quota import Quota
from engine.ports.provider import Access
from engine.ports.provider_errors import ProviderError
from engine.run.accounts.quota.broker import Broker
from quota_peers.server import KEY
from quota_peers.work import Call, calls

SIZE = struct.Struct("!I")


async def sent(writer: asyncio.StreamWriter, what: object) -> None:
    """Send an object."""
    data = pickle.dumps(what)
    writer.write(SIZE.pack(len(data)) + data)
    await writer.drain()


async def received(reader: asyncio.StreamReader) -> object:
    """Receive an object; None at the end."""
    try:
        (size,) = SIZE.unpack(await reader.readexactly(SIZE.size))
        return pickle.loads(await reader.readexactly(size))  # noqa: S301 - from a process that we started
    except asyncio.IncompleteReadError:
        return None


async def host(socket: str, share: Sequence[Call]) -> None:
    """Hand all calls to the owner, and wait for the replies."""
    reader, writer = await asyncio.open_unix_connection(socket)
    for number, call in enumerate(share):
        await sent(writer, (number, call))
    for _ in share:
        if await received(reader) is None:
            raise SystemExit("the owner is gone")
    writer.close()


class Owner:
    """Takes calls from hosts, and counts what comes of them."""

    def __init__(self, broker: Broker) -> None:
        """Start with nothing."""
        self.broker = broker
        self.answered = self.lost = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve a host until it has all its replies."""
        while (order := await received(reader)) is not None:
            task = asyncio.create_task(self._answer(order, writer))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        writer.close()

    async def make(self, call: Call) -> bool:
        """Make a call, and count it."""
        try:
            await self.broker.complete(call.request, flow=call.flow, urgent=call.urgent)
            self.answered += 1
        except ProviderError:
            self.lost += 1
            return False
        return True

    async def _answer(self, order: tuple[int, Call], writer: asyncio.StreamWriter) -> None:
        number, call = order
        await sent(writer, (number, await self.make(call)))


async def run(url: str, work: Sequence[Call], hosts: int, in_flight: int) -> dict[str, float]:
    """Make all calls, and return what came of them, and what it cost."""
    os.environ["BENCHMARK_KEY"] = KEY
    session = OpenAIProvider().connect(Access("benchmark", url, "BENCHMARK_KEY"))
    owner = Owner(Broker(session, Quota(max_in_flight=in_flight)))
    began = time.process_time()
    if hosts <= 1:
        await asyncio.gather(*(owner.make(call) for call in work))
    else:
        with tempfile.TemporaryDirectory() as folder:
            socket = f"{folder}/owner"
            async with await asyncio.start_unix_server(owner.serve, socket):
                line = [sys.executable, __file__, url, str(len(work)), "--hosts", str(hosts), "--socket", socket]
                people = [await asyncio.create_subprocess_exec(*line, "--host", str(number)) for number in range(hosts)]
                for person in people:
                    await person.wait()
    cpu = time.process_time() - began
    await session.close()
    return {
        "answered": owner.answered,
        "lost": len(work) - owner.answered,
        "cpu_ms_per_call": 1000 * cpu / len(work),
    }


def main() -> None:
    """Be the owner, or one of the hosts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("calls", type=int)
    parser.add_argument("--hosts", type=int, default=1)
    parser.add_argument("--in-flight", type=int, default=200)
    parser.add_argument("--host", type=int)
    parser.add_argument("--socket")
    wanted = parser.parse_args()
    work = calls(wanted.calls)
    if wanted.socket is not None:
        asyncio.run(host(wanted.socket, work[wanted.host :: wanted.hosts]))
    else:
        print(json.dumps(asyncio.run(run(wanted.url, work, wanted.hosts, wanted.in_flight))))


if __name__ == "__main__":
    main()
