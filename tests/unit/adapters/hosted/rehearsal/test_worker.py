"""The process behind the benches: what waits together is one call of the ports, and what fails stays where it is.

The ports here are small ones of the test's own, which note how they were called; `test_jobs` has the real ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from adapters.hosted.rehearsal.backend.parts import Backend, Question, Training
from adapters.hosted.rehearsal.backend.worker import Bound, End, work
from engine.domain.conversation import ChatRow, Turn
from engine.domain.cost import Usage
from engine.domain.results import Finish, Response, TrainingStep
from engine.domain.stage import ModelRef
from engine.domain.sweep import Decoding
from engine.ports import Context, Generated, GenerateTask, NoSettings, Settings, Sharing, TrainingRun, Tuned
from engine.run.executors.workers import WarmSlots

NONE = NoSettings()


class Own(Settings):
    """The settings of `Tuner`."""

    lr: float
    rank: int
    batch_size: int


class Source:
    def locate(self, settings: NoSettings) -> ModelRef:
        assert settings is NONE
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
    """Leaves one step an epoch; a learning rate above 0.5 fails after the first checkpoint."""

    def __init__(self) -> None:
        self.calls: list[list[TrainingRun]] = []

    def sharing(self, settings: Own) -> Sharing:
        return Sharing("", "" if settings.batch_size < 9 else "batch_size", (settings.batch_size,))

    def fine_tune(self, runs: Sequence[TrainingRun], held: Context) -> Iterator[tuple[str, Tuned | Exception]]:
        del held
        self.calls.append(list(runs))
        for run in runs:
            for place, checkpoint in enumerate(run.checkpoints):
                assert checkpoint.folder.is_dir()
                epochs = checkpoint.length.in_steps(1)
                steps = [TrainingStep(epoch, epoch, 1.0, run.settings.lr) for epoch in range(1, epochs + 1)]
                failed = run.settings.lr > 0.5 and place > 0
                yield checkpoint.key, FloatingPointError("nan") if failed else Tuned(steps, Usage())


def room() -> tuple[Bound, Shouter, Tuner]:
    shouter, tuner = Shouter(), Tuner()
    parts: Any = {"tuner": tuner, "generator": shouter, "judge": None, "source": Source()}
    own = {"generator_settings": NONE, "judge_settings": NONE, "source_settings": NONE}
    backend = Backend(**parts, tuner_settings=Own, **own, prompts={}, warm=WarmSlots)
    return Bound(backend, backend.context()), shouter, tuner


def question(user: str, tuned: str | None = None, **settings: Any) -> Question:
    return Question((Turn("user", user),), None, Decoding(8, **settings), 0, tuned)


def told(orders: Sequence[tuple[int, Question]], here: Bound) -> dict[int, list[str] | str]:
    """What each order was told: its answers, or the error that it ended with."""
    found: dict[int, list[str] | str] = {}
    ended = []
    for number, reply in work(orders, here):
        if isinstance(reply, End):
            ended.append(number)
            found.setdefault(number, reply.error)
        else:
            found[number] = [one.text for one in cast("list[Response]", reply)]
    assert sorted(ended) == sorted(number for number, _ in orders)
    return found


def test_requests_to_several_models_are_one_call_and_go_back_to_whoever_asked() -> None:
    here, shouter, _ = room()
    orders = [(1, question("a")), (2, question("b", "one")), (3, question("c")), (4, question("d", "two"))]
    assert told(orders, here) == {1: ["None A"], 2: ["one B"], 3: ["None C"], 4: ["two D"]}
    (tasks,) = shouter.calls
    assert [len(task.prompts) for task in tasks] == [2, 1, 1]


def test_sampled_requests_are_tasks_of_their_own_and_other_decoding_is_another_call() -> None:
    here, shouter, _ = room()
    warm = {"temperature": 0.5, "samples": 2}
    orders = [(1, question("a", **warm)), (2, question("b", **warm)), (3, question("c"))]
    assert told(orders, here) == {1: ["None A"] * 2, 2: ["None B"] * 2, 3: ["None C"]}
    assert sorted(len(tasks) for tasks in shouter.calls) == [1, 2]


def test_what_fails_fails_alone_and_what_ends_a_call_ends_the_rest_of_it() -> None:
    here, _, _ = room()
    alone = told([(1, question("a", "broken")), (2, question("b", "one"))], here)
    assert alone == {1: "ValueError: broken", 2: ["one B"]}
    rest = told([(1, question("a", "one")), (2, question("b", "fatal")), (3, question("c", "two"))], here)
    assert rest == {1: ["one A"], 2: "OSError: no more", 3: "OSError: no more"}


def test_jobs_that_may_share_a_batch_are_trained_together_and_keep_their_last_epochs(tmp_path: Path) -> None:
    here, _, tuner = room()
    rows = (ChatRow.exchange("1", "a", "b"),)

    def training(name: str, epochs: int, batch_size: int, multiplier: float = 1.0) -> Training:
        return Training(name, rows, epochs, batch_size, multiplier, 0, tmp_path / name)

    orders = [
        (1, training("a", 5, 4)),
        (2, training("b", 1, 4)),
        (3, training("c", 2, 4, 800.0)),
        (4, training("d", 1, 9)),
        (5, training("e", 1, 9)),
    ]
    replies = list(work(orders, here))
    assert sorted(len(runs) for runs in tuner.calls) == [1, 1, 3]
    cuts = [(number, reply[0]) for number, reply in replies if isinstance(reply, tuple)]
    assert cuts == [(1, 3), (1, 4), (1, 5), (2, 1), (3, 1), (4, 1), (5, 1)]
    errors = {number: reply.error for number, reply in replies if isinstance(reply, End)}
    assert errors == {1: "", 2: "", 3: "FloatingPointError: nan", 4: "", 5: ""}
    assert tuner.calls[0][0].settings == Own(lr=1e-3, rank=8, batch_size=4)
