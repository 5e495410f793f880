"""Fine-tuning at a provider, as the engine knows fine-tuning: what it costs, what it shares, and where its model is."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar, Literal

from engine.domain.cost import Usage
from engine.domain.results import TrainingStep
from engine.domain.stage import ModelRef, Range
from engine.domain.sweep import TuneRecipe
from engine.ports import Context, Sharing, Trajectory, Tuned, Workload
from engine.ports.account import Account, HostedTuning, TuningRequest

HERE = "model.json"
"""The file of a tune stage's artifact that names its model."""

OURS = frozenset({"adapter", "epochs", "batch_size"})
"""The settings of `TuneRecipe` that a provider takes, beside a learning rate."""

RATES = {
    "lr_multiplier": (
        "lr",
        "a provider's learning rate is a multiplier of its own: give `tune.lr_multiplier` instead of `tune.lr`",
    ),
    "lr": (
        "lr_multiplier",
        "this provider's learning rate is absolute: give `tune.lr` instead of `tune.lr_multiplier`",
    ),
}
"""By the learning rate that a provider takes: the one that it does not, and what to say then."""

SPREAD = (0.9, 1.4)
"""Low and high tokens, as multiples of the estimate: four characters a token is a rule of thumb."""

TEMPLATE_TOKENS_PER_ROW = 9
"""Tokens of the chat template around a system, a user and an assistant turn: three each (OpenAI's cookbook, "How to count
tokens with tiktoken")."""


class HostedFineTuner:
    """Supervised fine-tuning through a provider's API. The provider decides all but epochs, batch size and multiplier.

    Attributes:
        rate: The learning rate of `TuneRecipe` that the provider takes.
    """

    revision = 1
    rate: ClassVar[Literal["lr", "lr_multiplier"]] = "lr_multiplier"

    def objection(self, settings: TuneRecipe) -> str | None:
        """Say what a provider does not let anyone choose."""
        set_ = sorted(settings.model_dump(exclude_defaults=True).keys() - OURS - {self.rate})
        other, words = RATES[self.rate]
        if other in set_:
            return words
        return f"a provider decides {', '.join(f'`tune.{name}`' for name in set_)}: leave it out" if set_ else None

    def forecast(self, settings: TuneRecipe, workload: Workload) -> Range:
        """Estimate the tokens that are billed: those of the file, once an epoch."""
        tokens = (workload.tokens + TEMPLATE_TOKENS_PER_ROW * workload.items) * settings.epochs
        steps = math.ceil(workload.items / settings.batch_size) * settings.epochs
        low, mid, high = (
            Usage(optimizer_steps=steps, train_tokens=round(tokens * factor)) for factor in (SPREAD[0], 1.0, SPREAD[1])
        )
        return Range(low, mid, high)

    def warm_up(self) -> None:
        """Nothing is heavy here."""

    def sharing(self, settings: TuneRecipe) -> Sharing:
        """Nothing is shared: providers keep only their last checkpoints, and do not say how their schedule runs."""
        del settings
        return Sharing("adapter", "adapter")

    def fine_tune(
        self, trajectories: Sequence[Trajectory], context: Context
    ) -> Iterator[tuple[str, Tuned | Exception]]:
        """Run one job a cut, and yield (key, what it left) as each ends."""
        cuts = {cut.key: (cut, run) for run in trajectories for cut in run.cuts}
        requests = [_request(cut.key, cut.settings, run) for cut, run in cuts.values()]
        for key, made in account(context).fine_tune(requests):
            yield key, made if isinstance(made, Exception) else _kept(cuts[key][0].folder, cuts[key][0].settings, made)


class AbsoluteFineTuner(HostedFineTuner):
    """The same where the provider takes an absolute learning rate."""

    rate = "lr"


def account(context: Context) -> Account:
    """Return the account of this host.

    Raises:
        RuntimeError: It has none.
    """
    if context.account is None:
        message = "this worker has no account at a provider"
        raise RuntimeError(message)
    return context.account


def asked(model: ModelRef) -> str:
    """Return the name by which a provider knows a model."""
    if model.tuned is None:
        return model.base
    found: dict[str, str] = json.loads((Path(model.tuned) / HERE).read_text(encoding="utf-8"))
    return found["model"]


def _request(key: str, settings: TuneRecipe, run: Trajectory) -> TuningRequest:
    epochs, batch_size, multiplier = settings.epochs, settings.batch_size, settings.lr_multiplier
    return TuningRequest(key, run.model.base, run.rows, epochs, batch_size, multiplier, run.seed, settings.lr)


def _kept(folder: Path, settings: TuneRecipe, made: HostedTuning) -> Tuned:
    """Write down the model's name; the losses are those that the provider shows."""
    named = {"model": made.job.tuned_model, "base": made.job.model, "job": made.job.job_id}
    (folder / HERE).write_text(json.dumps(named | {"hyperparameters": dict(made.job.hyperparameters)}, indent=1))
    last = max((step.step for step in made.steps), default=1)
    asked = settings.lr_multiplier or settings.lr or 0.0
    shown = (made.job.hyperparameters.get(name) for name in ("learning_rate_multiplier", "learning_rate"))
    rate = next((value for value in shown if value is not None), asked)
    steps = [TrainingStep(one.step, settings.epochs * one.step / last, one.loss, rate) for one in made.steps]
    return Tuned(steps, Usage(optimizer_steps=len(steps)) + made.usage)
