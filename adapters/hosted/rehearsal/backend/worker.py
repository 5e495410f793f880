"""The process behind a workbench: takes what is waiting together, so that many requests are one call of the ports."""

from __future__ import annotations

import queue
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import TypeAlias

from adapters.hosted.rehearsal.backend.parts import Backend, Question, Training
from engine.domain.conversation import Prompt
from engine.domain.results import Response
from engine.domain.stage import ModelRef
from engine.domain.sweep import Length
from engine.ports import Checkpoint, Context, GenerateTask, TrainingRun, Tuned


@dataclass(frozen=True, slots=True)
class End:
    """An order has ended; `error` says why it failed, and is empty where it did not."""

    error: str = ""


@dataclass(frozen=True, slots=True)
class Bound:
    """What one process works with."""

    backend: Backend
    context: Context

    @property
    def base(self) -> ModelRef:
        """Where the base model is."""
        return self.backend.source.locate(self.backend.source_settings)


Reply: TypeAlias = list[Response] | tuple[int, Tuned] | End
Order: TypeAlias = tuple[int, Question | Training]
Asked: TypeAlias = list[tuple[int, Question]]
Trained: TypeAlias = list[tuple[int, Training]]


def serve(pipe: Connection, backend: Backend) -> None:
    """Work until the other side has gone.

    Args:
        pipe: Orders come in by number, and replies go out by the same.
        backend: What to work with.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the server ends this process when it ends
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # in order, so that what libraries hold is given back
    orders: queue.SimpleQueue[Order | None] = queue.SimpleQueue()
    room = Bound(backend, backend.context())
    threading.Thread(target=_read, args=(pipe, orders), daemon=True).start()
    with suppress(BrokenPipeError):
        while (taken := _waiting(orders)) is not None:
            for number, reply in work(taken, room):
                pipe.send((number, reply))


def _read(pipe: Connection, orders: queue.SimpleQueue[Order | None]) -> None:
    """Take orders off the pipe while others are worked on, so that the server never waits to send one."""
    with suppress(EOFError, OSError):
        while True:
            orders.put(pipe.recv())
    orders.put(None)


def _waiting(orders: queue.SimpleQueue[Order | None]) -> list[Order] | None:
    """Return all orders that wait, at least one; None when there will be no more."""
    taken = [orders.get()]
    while not orders.empty():
        taken.append(orders.get())
    if None in taken:
        return None
    return [order for order in taken if order is not None]


def work(orders: Iterable[Order], room: Bound) -> Iterator[tuple[int, Reply]]:
    """Yield the replies to orders that came together, by number; each order's last one is its `End`.

    Args:
        orders: Requests and trainings, in any order.
        room: What to work with.
    """
    asked: dict[object, Asked] = {}
    trained: dict[object, Trained] = {}
    for number, what in orders:
        if isinstance(what, Question):
            asked.setdefault(what.settings, []).append((number, what))
        else:
            trained.setdefault(_pack(number, what, room.backend), []).append((number, what))
    for questions in asked.values():
        yield from _ended((number for number, _ in questions), _answer(questions, room))
    for trainings in trained.values():
        yield from _ended((number for number, _ in trainings), _train(trainings, room))


def _pack(number: int, training: Training, backend: Backend) -> object:
    """What the trainings of one batch have in common; one that must go alone has its number."""
    sharing = backend.tuner.sharing(training.settings(backend.tuner_settings))
    return number if sharing.pack_blocked else sharing.pack


def _ended(numbers: Iterable[int], replies: Iterator[tuple[int, Reply]]) -> Iterator[tuple[int, Reply]]:
    """Pass replies on, and end every order once: what goes wrong fails those that have not ended."""
    rest, error = dict.fromkeys(numbers), ""
    try:
        for number, reply in replies:
            if isinstance(reply, End):
                rest.pop(number, None)
            yield number, reply
    except Exception as caught:  # noqa: BLE001 - it goes to whoever waits, and the process lives on
        error = _said(caught)
    for number in rest:
        yield number, End(error)


def _answer(questions: Asked, room: Bound) -> Iterator[tuple[int, Reply]]:
    """Answer requests with the same decoding; greedy ones to one model with one system prompt are one task."""
    tasks: dict[object, Asked] = {}
    for number, question in questions:
        # Sampled answers of one task share a random stream: alone, each depends on its own seed only.
        alone = number if question.settings.temperature > 0 else None
        tasks.setdefault((question.tuned, question.system, alone), []).append((number, question))
    asked = {str(place): together for place, together in enumerate(tasks.values())}
    orders = [_task(key, together, room) for key, together in asked.items()]
    for key, made in room.backend.generator.generate(orders, room.context):
        together = asked[key]
        if isinstance(made, Exception):
            yield from ((number, End(_said(made))) for number, _ in together)
            continue
        each = together[0][1].settings.samples
        for place, (number, _) in enumerate(together):
            yield number, list(made.responses[place * each : (place + 1) * each])


def _task(key: str, together: Asked, room: Bound) -> GenerateTask:
    first = together[0][1]
    prompts = [Prompt(str(number), "", question.turns) for number, question in together]
    model, own = first.weights(room.base), room.backend.generator_settings
    return GenerateTask(key, model, prompts, first.system, first.settings, own, first.seed)


def _train(trainings: Trained, room: Bound) -> Iterator[tuple[int, Reply]]:
    """Train jobs that may share a batch; each is one run with a checkpoint at every epoch that is kept."""
    base, found = room.base, {}
    runs = []
    for number, training in trainings:
        cuts = []
        for epoch in training.cuts:
            folder = training.weights(epoch)
            folder.mkdir(parents=True)
            key = training.key(epoch)
            found[key] = (number, epoch)
            cuts.append(Checkpoint(key, Length(epoch), folder))
        settings, state = training.settings(room.backend.tuner_settings), training.folder / "state"
        runs.append(TrainingRun(base, training.rows, settings, training.seed, tuple(cuts), state))
    for key, tuned in room.backend.tuner.fine_tune(runs, room.context):
        number, epoch = found[key]
        yield number, End(_said(tuned)) if isinstance(tuned, Exception) else (epoch, tuned)


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
