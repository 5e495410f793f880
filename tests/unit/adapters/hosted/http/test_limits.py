"""Waits and rate_limits, out of headers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.hosted.http.limits import duration, rate_limits, wait
from engine.ports.chat import RateLimit, RateLimits


@given(st.integers(0, 99), st.integers(0, 59), st.integers(0, 59), st.integers(0, 999))
def test_a_duration_is_read_as_it_is_written(hours: int, minutes: int, seconds: int, milliseconds: int) -> None:
    written = f"{hours}h{minutes}m{seconds}s{milliseconds}ms"
    assert duration(written) == pytest.approx(hours * 3600 + minutes * 60 + seconds + milliseconds / 1000)


@given(st.text(max_size=30) | st.sampled_from(["9" * 400 + "s", f"Wed, 21 Oct {'9' * 20} 07:28:00 GMT"]))
def test_no_text_is_a_negative_or_an_endless_wait(text: str) -> None:
    for found in (duration(text), wait({"retry-after": text, "retry-after-ms": text}, text)):
        assert found is None or 0 <= found < float("inf")


def test_the_most_exact_wait_counts() -> None:
    text = "Limit 3, Used 3, Requested 1. Please try again in 1m30.5s."
    assert wait({"retry-after-ms": "634", "retry-after": "1"}, text) == pytest.approx(0.634)
    assert wait({"retry-after": "20"}, text) == 20
    assert wait({}, text) == pytest.approx(90.5)
    assert wait({}, "slow down") is None
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=300), usegmt=True)
    assert wait({"retry-after": later}, "") == pytest.approx(300, abs=30)
    assert wait({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, "") == 0


def test_meters_are_read_and_what_is_not_told_is_none() -> None:
    headers = {
        "x-ratelimit-limit-requests": "500",
        "x-ratelimit-remaining-requests": "499",
        "x-ratelimit-reset-requests": "120ms",
        "x-ratelimit-limit-tokens": "200000",
        "x-ratelimit-remaining-tokens": "-1",
    }
    assert rate_limits(headers) == RateLimits(RateLimit(500, 499, 0.12), RateLimit(200_000, None, None))
    assert rate_limits({}) == RateLimits()


def test_of_two_token_limits_the_scarcer_counts() -> None:
    headers = {"x-ratelimit-remaining-tokens": "900", "x-ratelimit-remaining-project-tokens": "40"}
    assert rate_limits(headers).tokens.left == 40
    assert rate_limits({**headers, "x-ratelimit-remaining-tokens": "30"}).tokens.left == 30
