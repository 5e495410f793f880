"""An account at a provider, as adapters use it: within its quota, repeated where that is safe, and paid for once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from engine.domain.conversation import ChatRow
from engine.domain.cost import Usage
from engine.ports.chat import ChatRequest, Completion
from engine.ports.provider import Job, Step
from engine.ports.provider_errors import ProviderError


@dataclass(frozen=True, slots=True)
class TuningRequest:
    """A sample to be trained on at a provider.

    Attributes:
        key: The tune stage's key: what is paid for under it is never paid for again.
        model: The base model's name there.
        rows: The sample, in its sampled order.

    The rest is as in `JobOrder`.
    """

    key: str
    model: str
    rows: Sequence[ChatRow]
    epochs: int
    batch_size: int | None
    lr_multiplier: float | None
    seed: int
    lr: float | None = None


@dataclass(frozen=True, slots=True)
class HostedTuning:
    """A job that has succeeded, its training losses, and what it adds to the ledger."""

    job: Job
    steps: Sequence[Step]
    usage: Usage


class Account(Protocol):
    """An account, as adapters see it: within its quota, repeated where that is safe, and paid for once."""

    def complete_all(
        self, requests: Mapping[str, Sequence[ChatRequest]], *, urgent: bool
    ) -> Iterator[tuple[str, Sequence[Completion | ProviderError]]]:
        """Send all requests, and yield (stage key, replies in order) of each stage as soon as it is done.

        Args:
            requests: Requests by stage key.
            urgent: Whether they go before others of this account: judges do, because they finish cells.
        """

    def begun(self, stage_key: str) -> bool:
        """Tell whether replies of a stage that were bought in an earlier run wait to be used."""

    def fine_tune(self, requests: Sequence[TuningRequest]) -> Iterator[tuple[str, HostedTuning | ProviderError]]:
        """Run jobs, all at once within the quota, and yield (key, what came of it) of each as it ends."""
