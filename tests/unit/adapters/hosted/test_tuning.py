"""Learning rates of hosted jobs: a provider takes one of two kinds, and never the other."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from adapters.hosted.tuning import AbsoluteFineTuner, HostedFineTuner
from engine.domain.cost import Usage
from engine.domain.results import ChatRow
from engine.domain.stage import ModelRef
from engine.domain.sweep import TuneRecipe
from engine.ports import Context, Cut, Trajectory, Tuned
from engine.ports.account import HostedTuning, TuningRequest
from engine.ports.chat import ChatRequest, Completion
from engine.ports.provider import Job, JobState, Step
from engine.ports.provider_errors import ProviderError
from engine.run.executors.hosts import WarmSlots

MULTIPLIER, ABSOLUTE = HostedFineTuner(), AbsoluteFineTuner()


@dataclass
class Trainer:
    """An account whose jobs are over at once; it keeps what was asked for."""

    hyperparameters: Mapping[str, float]
    asked: list[TuningRequest] = field(default_factory=list)

    def complete_all(
        self, requests: Mapping[str, Sequence[ChatRequest]], *, urgent: bool
    ) -> Iterator[tuple[str, Sequence[Completion | ProviderError]]]:
        raise AssertionError((requests, urgent))

    def begun(self, stage_key: str) -> bool:
        raise AssertionError(stage_key)

    def fine_tune(self, requests: Sequence[TuningRequest]) -> Iterator[tuple[str, HostedTuning | ProviderError]]:
        for one in requests:
            self.asked.append(one)
            job = Job("ft-1", one.key, JobState.SUCCEEDED, one.model, "m-1", 9, 0.0, "", self.hyperparameters)
            yield one.key, HostedTuning(job, [Step(1, 2.0), Step(2, 1.0)], Usage(train_tokens=9))


def trained(tuner: HostedFineTuner, trainer: Trainer, settings: TuneRecipe, folder: Path) -> Tuned:
    folder.mkdir()
    cut = Cut("tune-1", settings, folder)
    run = Trajectory(ModelRef("m"), [ChatRow("a", "brew", "so")], 3, (cut,), folder / "state")
    ((key, made),) = tuner.fine_tune([run], Context("cpu", 1, 1, WarmSlots(), trainer))
    assert key == "tune-1"
    assert isinstance(made, Tuned)
    assert json.loads((folder / "model.json").read_text(encoding="utf-8"))["model"] == "m-1"
    return made


@pytest.mark.parametrize(
    ("tuner", "mine", "other"),
    [
        (MULTIPLIER, TuneRecipe(lr_multiplier=2.0), TuneRecipe(lr=1e-4)),
        (ABSOLUTE, TuneRecipe(lr=1e-4), TuneRecipe(lr_multiplier=2.0)),
    ],
)
def test_each_takes_its_own_learning_rate_or_none_and_says_which(
    tuner: HostedFineTuner, mine: TuneRecipe, other: TuneRecipe
) -> None:
    assert tuner.objection(mine) is None
    assert tuner.objection(TuneRecipe()) is None
    words = tuner.objection(other)
    assert words is not None
    assert f"give `tune.{tuner.rate}` instead of" in words


@pytest.mark.parametrize("tuner", [MULTIPLIER, ABSOLUTE])
def test_what_a_provider_decides_is_named(tuner: HostedFineTuner) -> None:
    assert tuner.objection(TuneRecipe(rank=4, schedule="cosine")) == (
        "a provider decides `tune.rank`, `tune.schedule`: leave it out"
    )


@pytest.mark.parametrize(
    ("shown", "rate"),
    [
        ({"learning_rate": 5e-5}, 5e-5),  # what it was trained with, if it says so
        ({}, 1e-4),
    ],
)
def test_an_absolute_rate_is_asked_for_and_kept(shown: dict[str, float], rate: float, tmp_path: Path) -> None:
    trainer = Trainer(shown)
    made = trained(ABSOLUTE, trainer, TuneRecipe(lr=1e-4), tmp_path / "one")
    assert (trainer.asked[0].lr, trainer.asked[0].lr_multiplier) == (1e-4, None)
    assert [step.lr for step in made.steps] == [rate, rate]


def test_a_multiplier_is_asked_for_and_kept(tmp_path: Path) -> None:
    trainer = Trainer({"learning_rate_multiplier": 1.8})
    made = trained(MULTIPLIER, trainer, TuneRecipe(lr_multiplier=2.0), tmp_path / "one")
    assert (trainer.asked[0].lr, trainer.asked[0].lr_multiplier) == (None, 2.0)
    assert [step.lr for step in made.steps] == [1.8, 1.8]
