"""The processes behind the server: what waits together is one call of the ports, and what fails stays where it is.

The ports here are small ones of the test's own, which note how they were called; `test_jobs` has the real ones.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from adapters.hosted.rehearsal.backend.parts import Backend
from adapters.hosted.rehearsal.backend.process import ENDED, ModelProcess, group, work
from engine.domain.conversation import ChatRow, Prompt, Turn
from engine.domain.cost import Usage
from engine.domain.results import Finish, Response, TrainingStep
from engine.domain.stage import ModelRef
from engine.domain.sweep import Decoding, Length
from engine.ports import Checkpoint, Context, Generated, GenerateTask, NoSettings, Settings, Sharing, TrainingRun, Tuned
from engine.run.executors.workers import WarmSlots

NONE = NoSettings()


class Own(Settings):
    """The settings of `Tuner`."""

    lr: float
    rank: int
    batch_size: int


class Source:
    def locate(self, settings: NoSettings) -> ModelRef:
        assert settings == NONE
        return ModelRef("base")


class Shouter:
    """Answers in capitals, with the name of the model; the model `broken` fails, and `fatal` ends the call."""

    def __init__(self) -> None:
        self.calls: list[list[GenerateTask]] = []

    def generate(self, tasks: Sequence[GenerateTask], held: Context) -> Iterator[tuple[str, Generated | Exception]]:
        del held
        self.calls.append(list(tasks))
        for task in tasks:
            if task.model.tuned == "fatal":
                raise OSError("no more")
            yield task.key, ValueError("broken") if task.model.tuned == "broken" else self._answered(task)

    def _answered(self, task: GenerateTask) -> Generated:
        made = [
            Response(prompt.prompt_id, sample, f"{task.model.tuned} {prompt.text.upper()}", Finish.STOP, 1, 1)
            for prompt in task.prompts
            for sample in range(task.decoding.samples)
        ]
        return Generated(made, Usage())


class Tuner:
    """Leaves one step an epoch; a learning rate above 0.5 fails."""

    Settings = Own

    def __init__(self) -> None:
        self.calls: list[list[TrainingRun]] = []

    def sharing(self, settings: Own) -> Sharing:
        return Sharing("", "" if settings.batch_size < 9 else "batch_size", (settings.batch_size,))

    def fine_tune(self, runs: Sequence[TrainingRun], held: Context) -> Iterator[tuple[str, Tuned | Exception]]:
        del held
        self.calls.append(list(runs))
        for run in runs:
            (checkpoint,) = run.checkpoints
            assert checkpoint.folder.is_dir()
            epochs = range(1, checkpoint.length.in_steps(1) + 1)
            steps = [TrainingStep(epoch, epoch, 1.0, run.settings.lr) for epoch in epochs]
            yield checkpoint.key, FloatingPointError("nan") if run.settings.lr > 0.5 else Tuned(steps, Usage())


def room() -> tuple[Backend, Shouter, Tuner]:
    shouter, tuner = Shouter(), Tuner()
    parts: Any = {"tuner": tuner, "generator": shouter, "judge": None, "source": Source()}
    return Backend(**parts, prompts={}, warm=WarmSlots), shouter, tuner


def question(user: str, tuned: str | None = None, **settings: Any) -> GenerateTask:
    model, prompt = ModelRef("base", () if tuned is None else (tuned,)), Prompt("", "", (Turn("user", user),))
    return GenerateTask("", model, [prompt], None, Decoding(8, **settings), NONE, 0)


def told(questions: Sequence[GenerateTask], here: Backend) -> list[list[str] | object]:
    """What each question was told: its answers, or the error that it ended with."""
    results = work(questions, here, here.context())
    return [[one.text for one in result] if isinstance(result, list) else result for result in results]


def test_requests_to_several_models_are_one_call_and_go_back_to_whoever_asked() -> None:
    here, shouter, _ = room()
    questions = [question("a"), question("b", "one"), question("c"), question("d", "two")]
    assert told(questions, here) == [["None A"], ["one B"], ["None C"], ["two D"]]
    (tasks,) = shouter.calls
    assert [len(task.prompts) for task in tasks] == [2, 1, 1]


def test_sampled_requests_are_tasks_of_their_own() -> None:
    here, shouter, _ = room()
    warm = {"temperature": 0.5, "samples": 2}
    assert told([question("a", **warm), question("b", **warm)], here) == [["None A"] * 2, ["None B"] * 2]
    assert [len(tasks) for tasks in shouter.calls] == [2]


def test_what_fails_fails_alone_and_what_ends_a_call_ends_the_rest_of_it() -> None:
    here, _, _ = room()
    assert told([question("a", "broken"), question("b", "one")], here) == ["ValueError: broken", ["one B"]]
    rest = told([question("a", "one"), question("b", "fatal"), question("c", "two")], here)
    assert rest == [["one A"], "OSError: no more", "OSError: no more"]


def training(folder: Path, name: str, epochs: int, batch_size: int, multiplier: float = 1.0) -> TrainingRun:
    (folder / name).mkdir()
    checkpoint = Checkpoint(name, Length(epochs), folder / name)
    rows, settings = (ChatRow.exchange("1", "a", "b"),), room()[0].training(batch_size, multiplier)
    return TrainingRun(ModelRef("base"), rows, settings, 0, (checkpoint,), folder / "state")


def test_jobs_that_share_a_batch_are_trained_in_one_call(tmp_path: Path) -> None:
    here, _, tuner = room()
    together = [training(tmp_path, "a", 5, 4), training(tmp_path, "b", 1, 4), training(tmp_path, "c", 2, 4, 800.0)]
    first, second, third = work(together, here, here.context())
    assert [len(tuned.steps) for tuned in (first, second) if isinstance(tuned, Tuned)] == [5, 1]
    assert third == "FloatingPointError: nan"
    (runs,) = tuner.calls
    assert runs[0].settings == Own(lr=1e-3, rank=8, batch_size=4)


def test_only_what_may_share_a_call_is_of_one_group(tmp_path: Path) -> None:
    here, _, _ = room()
    orders = [
        question("a"),
        question("b", "one"),
        question("c", temperature=0.5),
        *(training(tmp_path, name, 1, size) for name, size in zip("abde", (4, 4, 9, 9), strict=True)),
    ]
    groups = [group(order, here) for order in orders]
    assert [groups.index(one) for one in groups] == [0, 0, 2, 3, 3, 5, 6]


class Fatal(Shouter):
    """Ends its process where it is asked for `fatal`."""

    def generate(self, tasks: Sequence[GenerateTask], held: Context) -> Iterator[tuple[str, Generated | Exception]]:
        if any(task.model.tuned == "fatal" for task in tasks):
            os._exit(1)
        return super().generate(tasks, held)


def test_a_process_that_ends_fails_what_it_worked_on_and_the_next_order_starts_another(tmp_path: Path) -> None:
    here = replace(room()[0], generator=Fatal())

    async def go() -> None:
        process = ModelProcess(here)
        with pytest.raises(RuntimeError, match=ENDED):
            await process.ask(question("a", "fatal"))
        answers = await asyncio.gather(process.ask(question("b")), process.ask(question("c", samples=2)))
        assert [one.text for answer in answers for one in answer] == ["None B", "None C", "None C"]
        tuned = await process.train(training(tmp_path, "a", 2, 4))
        assert len(tuned.steps) == 2
        waits = asyncio.create_task(process.ask(question("d")))
        await asyncio.sleep(0)
        await process.close()
        with pytest.raises((RuntimeError, asyncio.CancelledError)):
            await waits

    asyncio.run(go())
