"""How many stage batches an account worker runs at a time. What is sent when, the quota decides."""

from __future__ import annotations

from engine.domain.stage import StageKind
from engine.domain.sweep import Account
from engine.run.drive.scheduler import Seat

JOBS = 8
"""Jobs at a time where the account's settings do not say: each waits for many minutes."""

MOST_JOBS = 64

ASKING = 4
"""Stage batches of answers at a time; each has thousands of requests."""

MOST_BATCHES = MOST_JOBS + ASKING + 1


def account_capacity(name: str, account: Account) -> tuple[Seat, ...]:
    """Return an account worker's places in the schedule.

    Args:
        name: The account's name in the spec.
        account: Its settings.
    """
    jobs = min(MOST_JOBS, account.quota.concurrent_jobs or JOBS)
    return (
        *(Seat(f"{name} job {index}", frozenset({StageKind.TUNE}), name) for index in range(jobs)),
        *(Seat(f"{name} asks {index}", frozenset({StageKind.GENERATE}), name) for index in range(ASKING)),
        Seat(f"{name} judges", frozenset({StageKind.JUDGE}), name),  # one, so that equal responses are judged once
    )
