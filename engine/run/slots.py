"""Slots of workers: which stages run where, as the scheduler knows it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from engine.domain.stage import StageKind, WorkerKind

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
