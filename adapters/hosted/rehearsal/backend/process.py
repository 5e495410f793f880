"""A workbench: a process of its own that trains or answers, as the event loop sees it."""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing
from collections.abc import AsyncGenerator
from contextlib import aclosing
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess

from adapters.hosted.rehearsal.backend import worker
from adapters.hosted.rehearsal.backend.parts import Backend, Question, Training
from adapters.hosted.rehearsal.backend.worker import End, Order, Reply
from engine.domain.results import Response
from engine.ports import Tuned

STOP_SECONDS = 5.0
ENDED = "the process that worked on it has ended"


class ModelProcess:
    """Hands orders to a process, which starts with the first one, and the results back to whoever waits.

    Args:
        backend: What the process works with.
    """

    def __init__(self, backend: Backend) -> None:
        """Start nothing yet."""
        self._backend = backend
        self._numbers = itertools.count()
        self._waiting: dict[int, asyncio.Queue[Reply]] = {}
        self._process: SpawnProcess | None = None
        self._pipe: Connection | None = None

    async def ask(self, question: Question) -> list[Response]:
        """Return the answers to one request.

        Raises:
            RuntimeError: They could not be made.
        """
        async with aclosing(self._order(question)) as replies:
            async for reply in replies:
                if isinstance(reply, list):
                    return reply
        raise RuntimeError("the model gave no answer")

    async def train(self, training: Training) -> AsyncGenerator[tuple[int, Tuned], None]:
        """Yield (epoch, what it left) of each cut as soon as its weights are written.

        Raises:
            RuntimeError: The training failed.
        """
        async with aclosing(self._order(training)) as replies:
            async for reply in replies:
                if isinstance(reply, tuple):
                    yield reply

    def stop(self) -> None:
        """End the process, now; `close` waits until it has ended."""
        if self._process is not None:
            self._lose()
            self._process.terminate()

    def close(self) -> None:
        """End the process, now, and wait for its end."""
        self.stop()
        if self._process is not None:
            self._process.join(STOP_SECONDS)
            self._process = None

    async def _order(self, what: Question | Training) -> AsyncGenerator[list[Response] | tuple[int, Tuned], None]:
        number = next(self._numbers)
        replies = self._waiting[number] = asyncio.Queue()
        try:
            self._send((number, what))
            while True:
                reply = await replies.get()
                if isinstance(reply, End):
                    if reply.error:
                        raise RuntimeError(reply.error)
                    return
                yield reply
        finally:
            del self._waiting[number]

    def _send(self, order: Order) -> None:
        if self._pipe is None:
            self._start()
        try:
            if self._pipe is not None:
                self._pipe.send(order)
        except OSError as error:
            self._lose()
            raise RuntimeError(ENDED) from error

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")  # a fork would copy the event loop's threads
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=worker.serve, args=(theirs, self._backend), daemon=True)
        self._process.start()
        theirs.close()
        asyncio.get_running_loop().add_reader(self._pipe.fileno(), self._receive)

    def _receive(self) -> None:
        pipe = self._pipe
        try:
            while pipe is not None and pipe.poll():
                number, reply = pipe.recv()
                if number in self._waiting:  # else nobody waits any more
                    self._waiting[number].put_nowait(reply)
        except (EOFError, OSError):
            self._lose()

    def _lose(self) -> None:
        """Let go of a process that has ended; the next order starts another one."""
        if self._pipe is not None:
            asyncio.get_running_loop().remove_reader(self._pipe.fileno())
            self._pipe.close()
            self._pipe = None
        for replies in self._waiting.values():
            replies.put_nowait(End(ENDED))
