"""What a run is told to do, and what it says it did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from engine.run.drive.prepare import Prepared


class Ending(StrEnum):
    """How a run ended."""

    COMPLETE = "complete"
    FAILURES = "finished with failures"
    FAILED_FAST = "stopped at the first failure"
    BUDGET = "stopped by the budget"
    INTERRUPTED = "interrupted"
    NOTHING_TO_DO = "nothing to do"  # it was complete already


@dataclass(slots=True)
class RunSummary:
    """What a run did; filled in while it goes on.

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
    ran: int = 0
    cached: int = 0
    failed: int = 0
    skipped: int = 0
    reason: str = ""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class RunOrder:
    """Everything that decides a run.

    Attributes:
        prepared: The sweep, as it was planned.
        files: Texts to keep in the run directory, by file name: the spec as written and the plan.
        fail_fast: Start nothing more after the first failure.
        is_rehearsal: Whether providers are played by local mock servers, so that all numbers are the stand-in's.
    """

    prepared: Prepared
    files: Mapping[str, str] = field(default_factory=dict)
    fail_fast: bool = False
    is_rehearsal: bool = False
