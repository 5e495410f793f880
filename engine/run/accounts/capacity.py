"""How many stage batches an account worker runs at a time. What is sent when, the quota decides."""

from __future__ import annotations

from engine.domain.stage import StageKind
from engine.domain.sweep import Account
from engine.run.slots import Slot

JOBS = 8
"""Jobs at a time where the account's settings do not say: each waits for many minutes."""

MOST_JOBS = 64

ASKING = 4
"""Stage batches of answers at a time; each has thousands of requests."""

MOST_BATCHES = MOST_JOBS + ASKING + 1


def account_capacity(name: str, account: Account) -> tuple[Slot, ...]:
    """Return the slots of an account.

    Args:
        name: The account's name in the spec.
        account: Its settings.
    """
    jobs = min(MOST_JOBS, account.quota.concurrent_jobs or JOBS)
    return (
        *(Slot(f"{name} job {index}", None, name, frozenset({StageKind.TUNE})) for index in range(jobs)),
        *(Slot(f"{name} asks {index}", None, name, frozenset({StageKind.GENERATE})) for index in range(ASKING)),
        Slot(
            f"{name} judges", None, name, frozenset({StageKind.JUDGE})
        ),  # one, so that equal responses are judged once
    )
