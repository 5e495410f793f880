"""Fine-tuning at a provider, as the engine knows fine-tuning: what it costs, what it shares, and where its model is."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from engine.domain.cost import Range, Usage
from engine.domain.results import TrainingStep
from engine.domain.stage import ModelRef
from engine.domain.sweep import Length
from engine.ports import Checkpoint, Context, Settings, Sharing, TrainingRun, Tuned, Workload
from engine.ports.account import Account, HostedTuning, TuningRequest

HERE = "model.json"
"""The file of a tune stage's artifact that names its model."""

SPREAD = (0.9, 1.4)
"""Low and high tokens, as multiples of the estimate: four characters a token is a rule of thumb."""

TEMPLATE_TOKENS_PER_ROW = 9
"""Tokens of the chat template around a system, a user and an assistant turn: three each (OpenAI's cookbook, "How to count
tokens with tiktoken")."""


class HostedTunerSettings(Settings):
    """What every provider lets anyone choose, beside the epochs."""

    batch_size: int = Field(default=10, ge=1, description="Examples per step.")


class MultiplierSettings(HostedTunerSettings):
    """The same, where a learning rate is a multiplier of the provider's own."""

    lr_multiplier: float | None = Field(
        default=None,
        gt=0,
        description="What the provider's own learning rate is multiplied with; its choice when omitted.",
    )


class AbsoluteSettings(HostedTunerSettings):
    """The same, where a learning rate is absolute."""

    lr: float | None = Field(
        default=None, gt=0, lt=1, description="Learning rate, absolute; the provider's choice when omitted."
    )


class HostedFineTuner:
    """Supervised fine-tuning through a provider's API. The provider decides all but epochs, batch size and multiplier.

    Attributes:
        takes_tuned: Whether a job may begin with a tuned model, by its name.
    """

    revision = 1
    Settings: ClassVar[type[HostedTunerSettings]] = MultiplierSettings
    takes_tuned: ClassVar[bool] = True

    def objection(self, settings: HostedTunerSettings, length: Length, model: ModelRef) -> str | None:
        """Refuse a length in steps: a job's is in epochs."""
        del settings, model
        set_ = [name for name in ("steps", "max_steps") if getattr(length, name) is not None]
        return f"a provider's jobs take epochs only: give `tune.epochs` instead of `tune.{set_[0]}`" if set_ else None

    def forecast(self, settings: HostedTunerSettings, length: Length, workload: Workload) -> Range:
        """Estimate the tokens that are billed: those of the file, once an epoch."""
        epochs = _epochs(length)
        tokens = (workload.tokens + TEMPLATE_TOKENS_PER_ROW * workload.items) * epochs
        steps = math.ceil(workload.items / settings.batch_size) * epochs
        low, mid, high = (
            Usage(optimizer_steps=steps, train_tokens=round(tokens * factor)) for factor in (SPREAD[0], 1.0, SPREAD[1])
        )
        return Range(low, mid, high)

    def warm_up(self) -> None:
        """Nothing is heavy here."""

    def sharing(self, settings: HostedTunerSettings) -> Sharing:
        """Nothing is shared: providers keep only their last checkpoints, and do not say how their schedule runs."""
        del settings
        return Sharing("use", "use")

    def fine_tune(self, runs: Sequence[TrainingRun], context: Context) -> Iterator[tuple[str, Tuned | Exception]]:
        """Run one job a checkpoint, and yield (key, what it left) as each ends."""
        jobs: dict[str, tuple[Path, TuningRequest]] = {}
        for run, checkpoint in ((one, checkpoint) for one in runs for checkpoint in one.checkpoints):
            if run.model.layers and not self.takes_tuned:
                yield checkpoint.key, ValueError("tuning a tuned hosted model is not supported at this provider")
            else:
                jobs[checkpoint.key] = checkpoint.folder, _request(checkpoint, run)
        for key, made in account(context).fine_tune([request for _, request in jobs.values()]):
            yield key, made if isinstance(made, Exception) else _kept(*jobs[key], made)


class AbsoluteFineTuner(HostedFineTuner):
    """The same where the provider takes an absolute learning rate, and no tuned model to begin with."""

    Settings = AbsoluteSettings
    takes_tuned = False


def account(context: Context) -> Account:
    """Return the account of this host.

    Raises:
        RuntimeError: It has none.
    """
    if context.account is None:
        raise RuntimeError("this worker has no account at a provider")
    return context.account


def asked(model: ModelRef) -> str:
    """Return the name by which a provider knows a model."""
    if model.tuned is None:
        return model.base
    found: dict[str, str] = json.loads((Path(model.tuned) / HERE).read_text(encoding="utf-8"))
    return found["model"]


def _epochs(length: Length) -> int:
    if length.epochs is None:
        raise ValueError("a provider's jobs take epochs only")
    return length.epochs


def _request(checkpoint: Checkpoint, run: TrainingRun) -> TuningRequest:
    settings, epochs = run.settings, _epochs(checkpoint.length)
    multiplier = settings.lr_multiplier if isinstance(settings, MultiplierSettings) else None
    lr = settings.lr if isinstance(settings, AbsoluteSettings) else None
    model, key = asked(run.model), checkpoint.key
    return TuningRequest(key, model, run.rows, epochs, settings.batch_size, multiplier, run.seed, lr)


def _kept(folder: Path, request: TuningRequest, made: HostedTuning) -> Tuned:
    """Write down the model's name; the losses are those that the provider shows."""
    named = {"model": made.job.tuned_model, "base": made.job.model, "job": made.job.job_id}
    (folder / HERE).write_text(json.dumps(named | {"hyperparameters": dict(made.job.hyperparameters)}, indent=1))
    last = max((step.step for step in made.steps), default=1)
    shown = (made.job.hyperparameters.get(name) for name in ("learning_rate_multiplier", "learning_rate"))
    rate = next((value for value in shown if value is not None), request.lr_multiplier or request.lr or 0.0)
    steps = [TrainingStep(one.step, request.epochs * one.step / last, one.loss, rate) for one in made.steps]
    return Tuned(steps, Usage(optimizer_steps=len(steps)) + made.usage)
