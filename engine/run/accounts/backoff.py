"""How long to wait, and how often to try again: for requests that cost nothing, and for what may have been made."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from engine.ports.provider_errors import NoReplyError, ThrottledError, UnavailableError

T = TypeVar("T")

TRIES = 8
"""How often a request is repeated that costs nothing, or that got no reply."""

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 60.0
"""Seconds."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to look for what may have been made.

    Attributes:
        lag: How long, in seconds, something new may be missing from a provider's list.
        look: How often it is looked for, in seconds.
    """

    lag: float = 30.0
    look: float = 2.0


PATIENT = Patience()


def backoff(failures: int, asked: float | None = None) -> float:
    """Return the seconds to wait before the next try, at most `LONGEST_PAUSE`.

    Args:
        failures: How often it failed, >= 0: each time the wait is twice as long.
        asked: The seconds that the provider asks for; they go before.

    >>> [backoff(failures) for failures in (0, 1, 6, 7, 10**6)]
    [0.5, 1.0, 32.0, 60.0, 60.0]
    """
    return min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(failures, 16) if asked is None else asked)


async def repeated(call: Callable[[], Awaitable[T]]) -> T:
    """Do what costs nothing, again and again while the provider is not well."""
    for attempt in range(TRIES - 1):
        try:
            return await call()
        except (ThrottledError, UnavailableError) as error:
            await asyncio.sleep(backoff(attempt, error.seconds))
        except NoReplyError:
            await asyncio.sleep(backoff(attempt))
    return await call()
