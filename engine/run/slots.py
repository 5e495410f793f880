"""Slots of workers: which stages run where, as the scheduler knows it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from engine.domain.stage import StageKind, WorkerKind
from engine.domain.sweep import Account

JOBS, MOST_JOBS = 8, 64
"""Jobs at a time where the account's settings do not say (each waits for many minutes), and the most that there are."""

ASKING = 4
"""Stage batches of answers at a time; each has thousands of requests."""

Work: TypeAlias = tuple[StageKind, WorkerKind, str | None]
"""A kind of stage, the kind of worker that runs it, and its account."""


@dataclass(frozen=True, slots=True)
class Slot:
    """Room for one stage batch at a time on a worker; an account worker has several.

    Attributes:
        name: Its name.
        worker: What its worker is; None for an account worker.
        account: The account whose stages it runs; None for those that need no account.
        kinds: The kinds of stage that it runs.
        is_all: Whether it runs stages for every worker and of every account.
    """

    name: str
    worker: WorkerKind | None
    account: str | None = None
    kinds: frozenset[StageKind] = frozenset(StageKind)
    is_all: bool = False

    def serves(self, work: Work) -> bool:
        """Tell whether it runs stages of a kind, for a kind of worker, of an account."""
        kind, worker, account = work
        if self.is_all:
            return True
        is_own = worker is self.worker if account is None else account == self.account
        return is_own and kind in self.kinds


def account_slots(name: str, account: Account) -> tuple[Slot, ...]:
    """Return the slots of an account, by its name in the spec. What is sent when, its quota decides."""
    jobs = min(MOST_JOBS, account.quota.concurrent_jobs or JOBS)
    names = {
        StageKind.TUNE: [f"{name} job {index}" for index in range(jobs)],
        StageKind.GENERATE: [f"{name} asks {index}" for index in range(ASKING)],
        StageKind.JUDGE: [f"{name} judges"],  # one, so that equal responses are judged once
    }
    return tuple(Slot(slot, None, name, frozenset({kind})) for kind, slots in names.items() for slot in slots)
