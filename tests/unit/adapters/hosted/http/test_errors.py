"""What each refusal becomes."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.hosted.http.errors import LONGEST, batch_problem, problem, scrubbed
from engine.ports.provider_errors import (
    BlockedError,
    DeniedError,
    ExhaustedError,
    NoReplyError,
    ProviderError,
    RejectedError,
    ThrottledError,
    UnavailableError,
)

BLOCKED_FILE = (
    "The job failed due to an unsafe training file. This training file was blocked by our moderation system because it"
    " contains too many examples that violate OpenAI's usage policies, or because it attempts to create model outputs that"
    " violate OpenAI's usage policies."
)
TABLE = [
    (400, "invalid_file", "invalid_request_error", "no such file", RejectedError),
    (400, "content_filter", None, "The response was filtered", BlockedError),
    (400, None, "invalid_request_error", BLOCKED_FILE, BlockedError),
    (400, "billing_hard_limit_reached", "invalid_request_error", "Billing hard limit has been reached", ExhaustedError),
    (400, None, "invalid_request_error", "Unknown model omni-moderation-latest", RejectedError),
    (401, "invalid_api_key", "invalid_request_error", "Incorrect API key provided", DeniedError),
    (402, None, None, "Payment required", ExhaustedError),
    (403, "permission_denied", None, "Fine-tuning is closed for this organization", DeniedError),
    (404, "model_not_found", None, "no such model", RejectedError),
    (408, None, None, "too slow", NoReplyError),
    (409, None, None, "conflict", NoReplyError),
    (422, None, None, "unprocessable", RejectedError),
    (307, None, None, "moved", RejectedError),
    (429, "rate_limit_exceeded", "tokens", "Limit 3, Used 3. Please try again in 634ms", ThrottledError),
    (429, "insufficient_quota", "insufficient_quota", "You exceeded your current quota", ExhaustedError),
    (429, None, "requests", "The project's spend limit has been reached", ExhaustedError),
    (503, "server_is_overloaded", "service_unavailable_error", "overloaded", UnavailableError),
]


def made(status: int, body: object, **headers: str) -> ProviderError:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return problem(status, body, names, scrubbed)


@pytest.mark.parametrize(("status", "code", "kind", "message", "expected"), TABLE)
def test_the_table(status: int, code: str | None, kind: str | None, message: str, expected: type) -> None:
    body = {"message": message, "type": kind, "code": code, "param": None}
    assert type(made(status, body)) is expected
    assert type(made(status, {"error": body})) is expected  # as a batch's lines have it


@pytest.mark.parametrize(
    ("code", "scope"), [("rate_limit_exceeded", "rate"), ("slow_down", "ramp"), ("daily_rate_limit_exceeded", "day")]
)
def test_a_throttle_says_which_limit_and_for_how_long(code: str, scope: str) -> None:
    found = made(429, {"message": "wait", "code": code}, retry_after_ms="1500")
    assert isinstance(found, ThrottledError)
    assert (found.scope, found.seconds) == (scope, 1.5)


def test_a_server_error_leaves_doubt_only_where_it_costs_money() -> None:
    refusal = (500, "oh", {"retry-after": "3"}, scrubbed)
    assert isinstance(problem(*refusal, costs=True), NoReplyError)
    found = problem(*refusal)
    assert isinstance(found, UnavailableError)
    assert found.seconds == 3
    assert isinstance(problem(503, "busy", {}, scrubbed, costs=True), UnavailableError)


def test_errors_of_batches() -> None:
    assert isinstance(batch_problem("batch_expired", "too late"), UnavailableError)
    assert isinstance(batch_problem("token_limit_exceeded", "Enqueued token limit reached"), ThrottledError)
    assert isinstance(batch_problem("", BLOCKED_FILE), BlockedError)
    assert isinstance(batch_problem("invalid_json_line", "line 3"), RejectedError)


words = st.one_of(
    st.none(), st.booleans(), st.integers(), st.text(), st.lists(st.text()), st.dictionaries(st.text(), st.text())
)
bodies = st.one_of(words, st.dictionaries(st.sampled_from(["error", "message", "code", "type", "detail"]), words))


@given(st.integers(300, 599), bodies, st.booleans())
def test_any_body_becomes_an_error_that_survives_pickling(status: int, body: object, costs: bool) -> None:  # noqa: FBT001
    found = problem(status, body, {}, scrubbed, costs=costs)
    again = pickle.loads(pickle.dumps(found))  # noqa: S301 - our own bytes
    assert (type(again), str(again), vars(again)) == (type(found), str(found), vars(found))
    assert str(found).startswith(str(status))
    assert len(str(found).splitlines()) == 1


@given(st.text(), st.text())
def test_a_text_is_kept_short_and_without_the_secret(before: str, after: str) -> None:
    kept = scrubbed(f"{before}sk-marker-123{after}", "sk-marker-123")
    assert "sk-marker-123" not in kept
    assert len(kept) <= LONGEST
