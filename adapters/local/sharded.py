"""Full fine-tuning over several GPUs: one process for each, which share the model's weights among them. Only workers import this.

Torch starts the processes and ends them together. They find each other by a file, and tell this one what they reach.
"""

from __future__ import annotations

import os
import pickle
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing.queues import Queue
from pathlib import Path
from queue import Empty
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from torch import distributed, multiprocessing
from torch.multiprocessing.spawn import spawn

from adapters.local import solo
from adapters.whole_model import set_up
from engine.ports import Context, NoPulse, StoppedError, Tuned

T = TypeVar("T")

PATIENCE = 0.2
"""Seconds between two looks whether the processes are alive."""


class _Cold:
    """Keeps nothing between the stages of a process that has one. Implements `engine.ports.Warm`."""

    def get(self, slot: str, key: str, make: Callable[[], T]) -> T:
        """Make it."""
        del slot, key
        return make()

    def drop(self, slot: str) -> None:
        """Do nothing."""


class _Told:
    """Tells the worker how far a run is. Implements `engine.ports.Pulse`.

    Args:
        words: Where to say it.
        answers: Whether the run is to stop, after each word.
    """

    def __init__(self, words: Queue[Any], answers: Queue[bool]) -> None:
        """Say nothing yet."""
        self._words, self._answers = words, answers

    def beat(self, key: str, done: float, of: float) -> None:
        """Say it.

        Raises:
            StoppedError: The run is to stop.
        """
        self._words.put((key, (done, of)))
        if self._answers.get():
            raise StoppedError


def trained(job: solo.Job, context: Context) -> Iterator[tuple[str, Tuned]]:
    """Train over `context.devices` GPUs, and yield (key, what it left) at each checkpoint, as `solo.train` does.

    On a CPU as many processes average their gradients, and each has the whole model: accelerate shards on GPUs alone.

    Raises:
        Exception: What any of the processes raised, or that one was killed; all of them have ended.
    """
    context.warm.drop("base")  # its memory is this run's
    spawning = multiprocessing.get_context("spawn")
    words, answers = spawning.Queue(), spawning.Queue()
    with TemporaryDirectory() as meeting:
        told = replace(context, warm=_Cold(), pulse=NoPulse())
        arguments = (job, told, str(Path(meeting) / "here"), words, answers)
        start: Any = spawn
        processes = start(_process, arguments, context.devices, join=False)
        with _ended(processes):
            while (heard := _heard(processes, words)) is not None:
                key, what = heard
                if isinstance(what, Exception):
                    processes.join(
                        timeout=PATIENCE
                    )  # raises where another was killed, of which this is the consequence
                    raise what
                if isinstance(what, Tuned):
                    yield key, what
                    continue
                try:
                    context.pulse.beat(key, *what)
                except StoppedError:
                    answers.put(obj=True)  # the state is kept first; then it comes back as what a process raised
                else:
                    answers.put(obj=False)


@contextmanager
def _ended(processes: Any) -> Iterator[None]:
    """End all processes with the block, however it ends."""
    try:
        yield
    finally:
        for process in processes.processes:
            process.terminate()
            process.join()


def _heard(processes: Any, words: Queue[Any]) -> Any:
    """Return what is said next; None when all processes have ended well, and nothing is left to hear.

    Raises:
        ProcessExitedException: A process died without a word.
    """
    while True:
        try:
            return words.get(timeout=PATIENCE)
        except Empty:
            if processes.join(timeout=0) and words.empty():
                return None


def _process(
    place: int, job: solo.Job, context: Context, meeting: str, words: Queue[Any], answers: Queue[bool]
) -> None:
    """Be one of the processes of a run: the first, `place` 0, tells what they reach."""
    os.setsid()  # Ctrl-C is the worker's to hear ...
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # ... and this is what torch has a process sent whose worker has died
    many = context.devices
    kind = context.device.partition(":")[0]
    threads = max(1, context.threads // many)
    own = {"RANK": place, "LOCAL_RANK": place, "WORLD_SIZE": many, "LOCAL_WORLD_SIZE": many, "OMP_NUM_THREADS": threads}
    os.environ.update({name: str(value) for name, value in own.items()})
    pulse = _Told(words, answers) if place == 0 else NoPulse()
    context = replace(context, device=kind if kind == "cpu" else f"{kind}:{place}", pulse=pulse)
    try:
        backend = "gloo" if kind == "cpu" else "cpu:gloo,cuda:nccl"
        distributed.init_process_group(backend, f"file://{meeting}", rank=place, world_size=many)
        set_up(replace(context, threads=threads))
        for key, tuned in solo.trained(job, context):
            if place == 0:
                words.put((key, tuned))
    except Exception as error:  # noqa: BLE001 - it is told to the worker, whose failure it is
        words.put(("", _portable(error)))
    else:
        distributed.destroy_process_group()


def _portable(error: Exception) -> Exception:
    """Return an error that another process can read."""
    try:
        same: Exception = pickle.loads(pickle.dumps(error))  # noqa: S301 - it was made here
    except Exception:  # noqa: BLE001 - errors fail to be read in ways of their own
        return RuntimeError(f"{type(error).__name__}: {error}")
    return same
