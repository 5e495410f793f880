"""A process of its own that trains or answers: orders that came together are one call of the ports."""

from __future__ import annotations

import asyncio
import multiprocessing
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import TypeAlias

from adapters.hosted.rehearsal.backend.parts import Backend
from engine.domain.conversation import Prompt
from engine.domain.results import Response
from engine.ports import Context, Generated, GenerateTask, TrainingRun, Tuned

STOP_SECONDS = 5.0
ENDED = "the process that worked on it has ended"

Order: TypeAlias = GenerateTask | TrainingRun
Result: TypeAlias = list[Response] | Tuned | str
"""What came of an order: the answers, what a training left, or why it failed."""


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
            self._process.kill()
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
            try:
                pipe = self._pipe or self._start()
                results = await asyncio.to_thread(_exchanged, pipe, [order for order, _ in taken])
            except Exception:  # noqa: BLE001 - it has ended, however; the next order starts another one
                if self._pipe is not None:
                    self._pipe.close()
                self._pipe = None
                results = [ENDED] * len(taken)
            for (_, future), result in zip(taken, results, strict=True):
                if not future.done():  # else nobody waits any more
                    future.set_result(result)

    def _taken(self) -> list[tuple[Order, asyncio.Future[Result]]]:
        """Take what may share a call with the first that waits."""
        groups: dict[object, list[tuple[Order, asyncio.Future[Result]]]] = {}
        for order, future in self._waiting:
            groups.setdefault(group(order, self._backend), []).append((order, future))
        first, *others = groups.values()
        self._waiting = [one for group in others for one in group]
        return first

    def _start(self) -> Connection:
        context = multiprocessing.get_context("spawn")  # a fork would copy the event loop's threads
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, self._backend), daemon=True)
        self._process.start()
        theirs.close()
        return self._pipe


def _exchanged(pipe: Connection, orders: Sequence[Order]) -> list[Result]:
    pipe.send(orders)
    results: list[Result] = pipe.recv()
    return results


def serve(pipe: Connection, backend: Backend) -> None:
    """Work until the other side has gone.

    Args:
        pipe: Orders of one group come in, and go out as their results.
        backend: What to work with.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the server ends this process when it ends
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # in order, so that what libraries hold is given back
    context = backend.context()
    with suppress(EOFError, BrokenPipeError):
        while True:
            pipe.send(work(pipe.recv(), backend, context))


def group(order: Order, backend: Backend) -> object:
    """Return what orders that are worked on in one call have in common."""
    if isinstance(order, GenerateTask):
        return order.decoding
    sharing = backend.tuner.sharing(order.settings)
    return order.checkpoints[0].key if sharing.pack_blocked else sharing.pack


def work(orders: Sequence[Order], backend: Backend, context: Context) -> list[Result]:
    """Return the results of orders of one group. What goes wrong fails those that have none by then."""
    asked = [order for order in orders if isinstance(order, GenerateTask)]
    runs = [order for order in orders if isinstance(order, TrainingRun)]
    found, error = dict[int, Result](), ""
    try:
        found.update(_trained(runs, backend, context) if runs else _answered(asked, backend, context))
    except Exception as caught:  # noqa: BLE001 - it goes to whoever waits, and the process lives on
        error = _said(caught)
    return [found.get(place, error) for place in range(len(orders))]


def _answered(asked: Sequence[GenerateTask], backend: Backend, context: Context) -> Iterator[tuple[int, Result]]:
    """Answer requests of one prompt each; greedy ones to one model with one system prompt are one task."""
    places: dict[object, list[int]] = {}
    for place, task in enumerate(asked):
        # Sampled answers of one task share a random stream: alone, each depends on its own seed only.
        alone = place if task.decoding.temperature > 0 else None
        places.setdefault((task.model, task.system, alone), []).append(place)
    tasks = {}
    for own in places.values():
        prompts = [replace(asked[place].prompts[0], prompt_id=str(place)) for place in own]
        tasks[str(own[0])] = replace(asked[own[0]], key=str(own[0]), prompts=prompts)
    for key, made in backend.generator.generate(list(tasks.values()), context):
        for prompt in tasks[key].prompts:
            yield int(prompt.prompt_id), _said(made) if isinstance(made, Exception) else _of(prompt, made)


def _of(prompt: Prompt, made: Generated) -> list[Response]:
    return [response for response in made.responses if response.prompt_id == prompt.prompt_id]


def _trained(runs: Sequence[TrainingRun], backend: Backend, context: Context) -> Iterator[tuple[int, Result]]:
    """Train jobs that may share a batch, each to its one checkpoint."""
    places = {run.checkpoints[0].key: place for place, run in enumerate(runs)}
    for key, tuned in backend.tuner.fine_tune(runs, context):
        yield places[key], _said(tuned) if isinstance(tuned, Exception) else tuned


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
