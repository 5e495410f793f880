"""What a reply's headers tell: how much of each limit is left, and how long to wait.

Source: OpenAI's rate-limit guide and its SDK's own reading of `retry-after`, both as of 2026-11.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from engine.ports.chat import RateLimit, RateLimits

PART = re.compile(r"(\d+(?:\.\d+)?)(ms|[smhd])")
UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
MOST_WAIT = 2 * 86_400.0
"""A longer wait, in seconds, is none that a provider means: some write a point in time there."""

ADVICE = re.compile(r"try again in ((?:\d+(?:\.\d+)?(?:ms|[smhd]))+)")


def rate_limits(headers: Mapping[str, str]) -> RateLimits:
    """Read the `x-ratelimit-*` headers. Of the tokens a minute of an organisation and of its project, the scarcer count.

    Args:
        headers: A reply's headers, their names in lower case or looked up without regard to it.
    """
    tokens, project = _rate_limit(headers, "tokens"), _rate_limit(headers, "project-tokens")
    return RateLimits(_rate_limit(headers, "requests"), _scarcer(tokens, project))


def wait(headers: Mapping[str, str], message: str) -> float | None:
    """Return how many seconds to wait: `retry-after-ms`, else `retry-after`, else what the message says, else None."""
    seconds = _wait(headers, message)
    return seconds if seconds is None or seconds <= MOST_WAIT else None


def _wait(headers: Mapping[str, str], message: str) -> float | None:
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    after = headers.get("retry-after", "")
    seconds = _number(after)
    if seconds is None:
        seconds = _until(after)
    if seconds is not None:
        return seconds
    advice = ADVICE.search(message)
    return duration(advice[1]) if advice else None


def duration(text: str | None) -> float | None:
    """Read a duration in seconds.

    >>> duration("6m0s"), duration("12ms"), duration("2.5"), duration("soon")
    (360.0, 0.012, 2.5, None)
    """
    if text is None:
        return None
    parts = PART.findall(text)
    if parts and "".join(number + unit for number, unit in parts) == text.strip():
        seconds = sum(float(number) * UNITS[unit] for number, unit in parts)
        return seconds if math.isfinite(seconds) else None
    return _number(text)


def _rate_limit(headers: Mapping[str, str], what: str) -> RateLimit:
    limit, left = (_number(headers.get(f"x-ratelimit-{which}-{what}")) for which in ("limit", "remaining"))
    return RateLimit(
        None if limit is None else int(limit),
        None if left is None else int(left),
        duration(headers.get(f"x-ratelimit-reset-{what}")),
    )


def _scarcer(one: RateLimit, other: RateLimit) -> RateLimit:
    if other.left is None:
        return one
    return other if one.left is None or other.left < one.left else one


def _number(text: str | None) -> float | None:
    """Read a number that is not negative: Azure says -1 where it does not count."""
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if 0 <= number < float("inf") else None


def _until(date: str) -> float | None:
    try:
        moment = parsedate_to_datetime(date)
    except (ValueError, OverflowError):
        return None
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(0.0, (aware - datetime.now(UTC)).total_seconds())
