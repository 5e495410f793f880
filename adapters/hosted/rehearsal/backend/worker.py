"""What happens in the process behind a `ModelProcess`: orders that came together are one call of the ports."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import TypeAlias

from adapters.hosted.rehearsal.backend.parts import Backend, Question, Training
from engine.domain.conversation import Prompt
from engine.domain.results import Response
from engine.domain.stage import ModelRef
from engine.domain.sweep import Length
from engine.ports import Checkpoint, Context, GenerateTask, TrainingRun, Tuned

Order: TypeAlias = Question | Training
Result: TypeAlias = list[Response] | Tuned | str
"""What came of an order: the answers, what a training left, or why it failed."""


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
    if isinstance(order, Question):
        return order.settings
    sharing = backend.tuner.sharing(order.settings(backend.tuner_settings))
    return order.name if sharing.pack_blocked else sharing.pack


def work(orders: Sequence[Order], backend: Backend, context: Context) -> list[Result]:
    """Return the results of orders of one group. What goes wrong fails those that have none by then."""
    questions = [order for order in orders if isinstance(order, Question)]
    trainings = [order for order in orders if isinstance(order, Training)]
    found, error = dict[int, Result](), ""
    try:
        found.update(_train(trainings, backend, context) if trainings else _answer(questions, backend, context))
    except Exception as caught:  # noqa: BLE001 - it goes to whoever waits, and the process lives on
        error = _said(caught)
    return [found.get(place, error) for place in range(len(orders))]


def _answer(questions: Sequence[Question], backend: Backend, context: Context) -> Iterator[tuple[int, Result]]:
    """Answer requests with the same decoding; greedy ones to one model with one system prompt are one task."""
    places: dict[object, list[int]] = {}
    for place, question in enumerate(questions):
        # Sampled answers of one task share a random stream: alone, each depends on its own seed only.
        alone = place if question.settings.temperature > 0 else None
        places.setdefault((question.tuned, question.system, alone), []).append(place)
    together = {str(together[0]): together for together in places.values()}
    base = backend.source.locate(backend.source_settings)
    tasks = [_task(key, [questions[place] for place in places], base, backend) for key, places in together.items()]
    for key, made in backend.generator.generate(tasks, context):
        for number, place in enumerate(together[key]):
            each = questions[place].settings.samples
            yield (
                place,
                _said(made)
                if isinstance(made, Exception)
                else list(made.responses[number * each : (number + 1) * each]),
            )


def _task(key: str, questions: Sequence[Question], base: ModelRef, backend: Backend) -> GenerateTask:
    first = questions[0]
    model = base if first.tuned is None else ModelRef(base.base, (first.tuned,))
    prompts = [Prompt(str(place), "", question.turns) for place, question in enumerate(questions)]
    return GenerateTask(key, model, prompts, first.system, first.settings, backend.generator_settings, first.seed)


def _train(trainings: Sequence[Training], backend: Backend, context: Context) -> Iterator[tuple[int, Result]]:
    """Train jobs that may share a batch."""
    base = backend.source.locate(backend.source_settings)
    places = {training.name: place for place, training in enumerate(trainings)}
    runs = []
    for training in trainings:
        training.weights.mkdir(parents=True)
        checkpoint = Checkpoint(training.name, Length(training.epochs), training.weights)
        settings, state = training.settings(backend.tuner_settings), training.folder / "state"
        runs.append(TrainingRun(base, training.rows, settings, training.seed, (checkpoint,), state))
    for name, tuned in backend.tuner.fine_tune(runs, context):
        yield places[name], _said(tuned) if isinstance(tuned, Exception) else tuned


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
