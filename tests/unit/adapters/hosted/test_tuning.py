"""Hosted jobs: a learning rate of one of two kinds, a length in epochs, and what they begin with."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from pydantic import ValidationError

from adapters.hosted.tuning import AbsoluteFineTuner, AbsoluteSettings, HostedFineTuner, MultiplierSettings
from engine.domain.conversation import ChatRow
from engine.domain.cost import Usage
from engine.domain.stage import ModelRef
from engine.domain.sweep import Length
from engine.ports import Checkpoint, Context, Settings, TrainingRun, Tuned, Workload
from engine.ports.account import HostedTuning, TuningRequest
from engine.ports.chat import ChatRequest, Completion
from engine.ports.provider import Job, JobState, Step
from engine.ports.provider_errors import ProviderError
from engine.run.executors.workers import WarmSlots

MULTIPLIER, ABSOLUTE = HostedFineTuner(), AbsoluteFineTuner()
BASE = ModelRef("m")


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


def tuned(
    tuner: HostedFineTuner, trainer: Trainer, settings: Settings, folder: Path, model: ModelRef = BASE
) -> Tuned | Exception:
    folder.mkdir()
    checkpoint = Checkpoint("tune-1", Length(3), folder)
    run = TrainingRun(model, [ChatRow.exchange("a", "brew", "so")], settings, 3, (checkpoint,), folder / "state")
    ((key, made),) = tuner.fine_tune([run], Context("cpu", 1, 1, WarmSlots(), trainer))
    assert key == "tune-1"
    return made


def trained(tuner: HostedFineTuner, trainer: Trainer, settings: Settings, folder: Path) -> Tuned:
    made = tuned(tuner, trainer, settings, folder)
    assert isinstance(made, Tuned)
    assert json.loads((folder / "model.json").read_text(encoding="utf-8"))["model"] == "m-1"
    return made


@pytest.mark.parametrize(
    ("tuner", "rate"), [(MULTIPLIER, "lr_multiplier"), (ABSOLUTE, "lr")], ids=["multiplier", "absolute"]
)
def test_each_takes_its_own_learning_rate_and_nothing_that_a_provider_decides(
    tuner: HostedFineTuner, rate: str
) -> None:
    assert sorted(tuner.Settings.model_fields) == ["batch_size", rate]
    assert getattr(tuner.Settings(), rate) is None
    for wrong in ({rate: 0.0}, {"batch_size": 0}, {"rank": 4}):
        with pytest.raises(ValidationError):
            tuner.Settings.model_validate(wrong)


def test_a_length_is_in_epochs() -> None:
    assert MULTIPLIER.objection(MultiplierSettings(), Length(3), ModelRef("gpt")) is None
    for length, name in ((Length(None, 5), "steps"), (Length(3, None, 5), "max_steps")):
        words = f"a provider's jobs take epochs only: give `tune.epochs` instead of `tune.{name}`"
        assert MULTIPLIER.objection(MultiplierSettings(), length, ModelRef("gpt")) == words


def test_a_forecast_counts_each_epoch() -> None:
    found = MULTIPLIER.forecast(MultiplierSettings(batch_size=4), Length(3), Workload(None, 100, 10))
    assert found.expected == Usage(optimizer_steps=9, train_tokens=3 * (100 + 9 * 10))


@pytest.mark.parametrize(
    ("shown", "rate"),
    [
        ({"learning_rate": 5e-5}, 5e-5),  # what it was trained with, if it says so
        ({}, 1e-4),
    ],
)
def test_an_absolute_rate_is_asked_for_and_kept(shown: dict[str, float], rate: float, tmp_path: Path) -> None:
    trainer = Trainer(shown)
    made = trained(ABSOLUTE, trainer, AbsoluteSettings(lr=1e-4), tmp_path / "one")
    assert (trainer.asked[0].lr, trainer.asked[0].lr_multiplier) == (1e-4, None)
    assert [step.lr for step in made.steps] == [rate, rate]


def test_a_multiplier_is_asked_for_and_kept(tmp_path: Path) -> None:
    trainer = Trainer({"learning_rate_multiplier": 1.8})
    made = trained(MULTIPLIER, trainer, MultiplierSettings(lr_multiplier=2.0), tmp_path / "one")
    assert (trainer.asked[0].lr, trainer.asked[0].lr_multiplier) == (None, 2.0)
    assert [step.lr for step in made.steps] == [1.8, 1.8]
    assert trainer.asked[0].epochs == 3
    assert [step.epoch for step in made.steps] == [1.5, 3.0]


def test_a_second_tuning_begins_with_the_tuned_models_name_where_the_provider_takes_it(tmp_path: Path) -> None:
    trainer, first = Trainer({}), tmp_path / "first"
    trained(MULTIPLIER, trainer, MultiplierSettings(), first)
    model = ModelRef("m", (str(first),))
    assert isinstance(tuned(MULTIPLIER, trainer, MultiplierSettings(), tmp_path / "second", model), Tuned)
    assert [request.model for request in trainer.asked] == ["m", "m-1"]
    refused = tuned(ABSOLUTE, trainer, AbsoluteSettings(), tmp_path / "third", model)
    assert "tuning a tuned hosted model is not supported" in str(refused)
    assert len(trainer.asked) == 2
