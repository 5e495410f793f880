"""A process of its own that trains or answers, as the event loop sees it."""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import Sequence
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess

from adapters.hosted.rehearsal.backend import worker
from adapters.hosted.rehearsal.backend.parts import Backend
from adapters.hosted.rehearsal.backend.worker import Order, Result
from engine.domain.results import Response
from engine.ports import GenerateTask, TrainingRun, Tuned

STOP_SECONDS = 5.0
ENDED = "the process that worked on it has ended"


class ModelProcess:
    """Hands orders to a process, which starts with the first one: those that wait and may share a call, together.

    Args:
        backend: What the process works with.
    """

    def __init__(self, backend: Backend) -> None:
        """Start nothing yet."""
        self._backend = backend
        self._waiting: list[tuple[Order, asyncio.Future[Result]]] = []
        self._work: asyncio.Task[None] | None = None
        self._process: SpawnProcess | None = None
        self._pipe: Connection | None = None

    async def ask(self, task: GenerateTask) -> list[Response]:
        """Return the answers to one prompt.

        Raises:
            RuntimeError: They could not be made.
        """
        result = await self._result(task)
        if isinstance(result, list):
            return result
        raise RuntimeError(result)

    async def train(self, run: TrainingRun) -> Tuned:
        """Return what a training has left at its one checkpoint, once its weights are written.

        Raises:
            RuntimeError: The training failed.
        """
        result = await self._result(run)
        if isinstance(result, Tuned):
            return result
        raise RuntimeError(result)

    async def close(self) -> None:
        """End the process, now, and wait for its end."""
        for _, future in self._waiting:
            future.cancel()
        self._waiting.clear()
        if self._process is not None:
            self._process.terminate()
            await asyncio.to_thread(self._process.join, STOP_SECONDS)
        if self._work is not None:
            await self._work

    async def _result(self, order: Order) -> Result:
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((order, future))
        if self._work is None or self._work.done():
            self._work = asyncio.create_task(self._work_off())
        return await future

    async def _work_off(self) -> None:
        while self._waiting:
            taken = self._taken()
            pipe = self._pipe or self._start()
            try:
                results = await asyncio.to_thread(_exchanged, pipe, [order for order, _ in taken])
            except (EOFError, OSError):
                self._lose()
                results = [ENDED] * len(taken)
            for (_, future), result in zip(taken, results, strict=True):
                if not future.done():  # else nobody waits any more
                    future.set_result(result)

    def _taken(self) -> list[tuple[Order, asyncio.Future[Result]]]:
        """Take what may share a call with the first that waits."""
        groups: dict[object, list[tuple[Order, asyncio.Future[Result]]]] = {}
        for order, future in self._waiting:
            groups.setdefault(worker.group(order, self._backend), []).append((order, future))
        first, *others = groups.values()
        self._waiting = [one for group in others for one in group]
        return first

    def _start(self) -> Connection:
        context = multiprocessing.get_context("spawn")  # a fork would copy the event loop's threads
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=worker.serve, args=(theirs, self._backend), daemon=True)
        self._process.start()
        theirs.close()
        return self._pipe

    def _lose(self) -> None:
        """Let go of a process that has ended; the next order starts another one."""
        if self._pipe is not None:
            self._pipe.close()
            self._pipe = None


def _exchanged(pipe: Connection, orders: Sequence[Order]) -> list[Result]:
    pipe.send(orders)
    results: list[Result] = pipe.recv()
    return results
