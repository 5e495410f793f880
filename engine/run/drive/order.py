"""What a run is told to do, and what it says it did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from engine.domain.cost import Range
from engine.domain.plan import Plan
from engine.domain.sweep import RunSettings
from engine.plan.catalogue import Catalogue
from engine.plan.share import Groups
from engine.plan.tariff import Tariff


class Ending(StrEnum):
    """How a run ended."""

    COMPLETE = "complete"
    FAILURES = "finished with failures"
    FAILED_FAST = "stopped at the first failure"
    BUDGET = "stopped by the budget"
    INTERRUPTED = "interrupted"
    NOTHING_TO_DO = "nothing to do"  # it was complete already


@dataclass(frozen=True, slots=True)
class RunSummary:
    """What a run did.

    Attributes:
        ending: How it ended.
        ran: Stages that ended in this run, done or not.
        cached: Stages that were there already.
        failed: Stages that failed.
        skipped: Stages skipped because one that they need failed.
        reason: Why it stopped early, and what to do; empty when it did not.
        seconds: Wall seconds.
    """

    ending: Ending
    ran: int
    cached: int
    failed: int
    skipped: int
    reason: str
    seconds: float


@dataclass(frozen=True, slots=True)
class RunOrder:
    """Everything that decides a run.

    Attributes:
        plan: What to do.
        forecasts: Expected usage by stage key; what the checkpoints of a training run share is counted once.
        groups: Which stages a worker may take together.
        settings: The sweep's run settings.
        catalogue: The cards that the plan was made with.
        papers: Texts to keep in the run directory, by file name: the spec as written and the plan.
        tariff: What stages cost.
        ahead: Stages that were to run when it was planned.
        description: What the sweep asks, in the spec's words.
        fail_fast: Start nothing more after the first failure.
        is_rehearsal: Whether providers are played by local mock servers, so that all numbers are the stand-in's.
    """

    plan: Plan
    forecasts: Mapping[str, Range]
    groups: Groups
    settings: RunSettings
    catalogue: Catalogue
    papers: Mapping[str, str]
    tariff: Tariff
    ahead: int
    description: str = ""
    fail_fast: bool = False
    is_rehearsal: bool = False
