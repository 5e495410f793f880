"""Who passes the limits of a model, what is charged, and what a refusal says; the clock is the test's."""

from __future__ import annotations

from typing import Any

import pytest

from adapters.hosted.rehearsal.api import ApiError
from adapters.hosted.rehearsal.limits.quotas import Quotas, charge
from adapters.hosted.rehearsal.settings import QuotaSettings

TUNED = "ft:standin-aligned:rehearsal::abcd"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def quotas(clock: Clock, limits: dict, **settings: object) -> Quotas:
    wanted = {"limits": {"standin-aligned": limits}, "policy": "sliding"} | settings
    return Quotas(QuotaSettings.model_validate(wanted), clock)


def refused(held: Quotas, tokens: int, model: str = "standin-aligned") -> ApiError:
    with pytest.raises(ApiError) as caught:
        held.admit(model, tokens)
    assert caught.value.status == 429
    return caught.value


def test_a_request_is_charged_the_larger_of_what_it_allows_and_what_it_says() -> None:
    assert charge(100, 2, 40) == 200
    assert charge(0, 1, 41) == 11


def test_requests_and_tokens_are_taken_together_or_not_at_all() -> None:
    held = quotas(Clock(), {"rpm": 10, "tpm": 100}, failed_count=False)
    held.admit("standin-aligned", 80)
    error = refused(held, 30)
    assert error.body["error"]["type"] == "tokens"
    assert error.code == "rate_limit_exceeded"
    assert "Limit 100, Used 80, Requested 30" in str(error)
    assert held.headers("standin-aligned")["x-ratelimit-remaining-requests"] == "9"
    held.admit("standin-aligned", 20)


def test_a_refusal_says_how_long_and_is_right_about_it() -> None:
    clock = Clock()
    held = quotas(clock, {"tpm": 100})
    held.admit("standin-aligned", 60)
    clock.now += 12.25
    held.admit("standin-aligned", 40)
    error = refused(held, 50)
    assert error.headers == {"retry-after": "48", "retry-after-ms": "47750"}
    assert "try again in 47750ms" in str(error)
    clock.now += 47.75
    held.admit("standin-aligned", 50)


def test_a_silent_server_says_nothing() -> None:
    held = quotas(Clock(), {"tpm": 100}, retry_after=False)
    held.admit("standin-aligned", 100)
    assert refused(held, 1).headers == {}


@pytest.mark.parametrize(("failed_count", "left"), [(True, "1"), (False, "4")])
def test_refused_requests_count_where_they_do(*, failed_count: bool, left: str) -> None:
    held = quotas(Clock(), {"rpm": 5, "tpm": 100}, failed_count=failed_count)
    held.admit("standin-aligned", 100)
    for _ in range(3):
        refused(held, 10)
    assert held.headers("standin-aligned")["x-ratelimit-remaining-requests"] == left


@pytest.mark.parametrize(("policy", "left"), [("settled", 90), ("reserved", 20)])
def test_what_was_not_used_comes_back_where_it_is_settled(policy: str, left: Any) -> None:
    held = quotas(Clock(), {"tpm": 100, "rpm": 10, "tpd": 200}, charge=policy)
    held.settle(held.admit("standin-aligned", 80), 10)
    assert held.headers("standin-aligned")["x-ratelimit-remaining-tokens"] == str(left)
    assert held.headers("standin-aligned")["x-ratelimit-remaining-requests"] == "9"


def test_a_tuned_model_shares_the_limits_of_its_base_and_others_do_not() -> None:
    held = quotas(Clock(), {"rpm": 1})
    held.admit(TUNED, 1)
    refused(held, 1)
    refused(held, 1, TUNED)
    held.admit("standin-echo", 10**6)
    assert held.headers("standin-echo") == {}


def test_what_can_never_pass_is_told_so() -> None:
    error = refused(quotas(Clock(), {"tpm": 100}), 101)
    assert "Request too large" in str(error)
    assert error.headers == {}


def test_a_day_is_a_limit_too() -> None:
    clock = Clock()
    held = quotas(clock, {"tpd": 100}, day_seconds=500.0)
    held.admit("standin-aligned", 100)
    clock.now += 120
    assert "tokens per day (TPD)" in str(refused(held, 1))
    clock.now += 380
    held.admit("standin-aligned", 1)


def test_jobs_are_limited_by_how_many_are_active_and_by_the_day() -> None:
    clock = Clock()
    held = quotas(clock, {"active_jobs": 2, "daily_jobs": 3}, day_seconds=100.0)
    for _ in range(3):
        held.admit_job("standin-aligned", 1)
        clock.now += 10
    with pytest.raises(ApiError) as active:
        held.admit_job("standin-aligned", 2)
    assert active.value.code == "rate_limit_exceeded"
    with pytest.raises(ApiError) as daily:
        held.admit_job("standin-aligned", 0)
    assert daily.value.code == "daily_rate_limit_exceeded"
    assert daily.value.headers["retry-after"] == "70"
    clock.now += 70
    held.admit_job("standin-aligned", 0)
