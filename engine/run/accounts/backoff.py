"""How long, and how often: repeating what costs nothing, and looking for what may have been made."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from engine.ports.provider_errors import NoReplyError, ThrottledError, UnavailableError

T = TypeVar("T")

TRIES = 8
"""How often a request is repeated that costs nothing, or that was not heard."""

LONGEST_PAUSE = 60.0
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


def pause(attempt: int, seconds: float | None) -> float:
    """Return seconds to wait: what the provider says, else twice as long each time; bounded."""
    return min(LONGEST_PAUSE, seconds if seconds is not None else 0.5 * 2.0**attempt)


async def repeated(call: Callable[[], Awaitable[T]]) -> T:
    """Do what costs nothing, again and again while the provider is not well."""
    for attempt in range(TRIES - 1):
        try:
            return await call()
        except (ThrottledError, UnavailableError) as error:
            await asyncio.sleep(pause(attempt, error.seconds))
        except NoReplyError:
            await asyncio.sleep(pause(attempt, None))
    return await call()
