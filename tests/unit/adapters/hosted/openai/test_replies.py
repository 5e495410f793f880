"""OpenAI's objects in the engine's words."""

from __future__ import annotations

import base64
import json

import pytest

from adapters.hosted.http.errors import scrubbed
from adapters.hosted.openai import bodies, replies
from adapters.hosted.openai.bodies import Limit
from adapters.hosted.openai.replies import ChatReply, Event, FineTuningJob
from engine.domain.conversation import Turn
from engine.ports.chat import ChatRequest, Choice, FinishReason, RateLimits
from engine.ports.provider import Job, JobState, Step

FILE_GATE = (
    "This training file was blocked by our moderation system because it contains too many examples that violate OpenAI's"
    " usage policies"
)


def job(**fields: object) -> Job:
    return replies.job(FineTuningJob.model_validate({"id": "ftjob-1", "status": "failed", **fields}), scrubbed)


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("validating_files", JobState.WAITING),
        ("queued", JobState.WAITING),
        ("paused", JobState.WAITING),
        ("a state of next year", JobState.WAITING),
        ("pausing", JobState.RUNNING),
        ("running", JobState.RUNNING),
        ("succeeded", JobState.SUCCEEDED),
        ("cancelled", JobState.CANCELLED),
    ],
)
@pytest.mark.parametrize("error", [None, {}, {"code": None, "message": None, "param": None}])
def test_a_healthy_job_is_healthy_whatever_form_its_error_has(status: str, state: JobState, error: object) -> None:
    found = job(status=status, error=error)
    assert (found.state, found.reason) == (state, "")


def test_a_job_that_moderation_failed_is_blocked_and_any_other_is_failed() -> None:
    blocked = job(error={"code": "invalid_training_file", "message": FILE_GATE})
    assert (blocked.state, blocked.reason) == (JobState.BLOCKED, FILE_GATE)
    assert job(error={"code": "x", "message": "failed moderation eval refusals_v3"}).state is JobState.BLOCKED
    failed = job(error={"code": "invalid_file", "message": "Example 3 is invalid"})
    assert (failed.state, failed.reason) == (JobState.FAILED, "Example 3 is invalid")


def test_a_job_keeps_its_key_and_what_was_resolved() -> None:
    method = {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 3, "batch_size": "auto"}}}
    found = job(metadata={"dosimeter": "tune-1", "other": "x"}, method=method, hyperparameters={"n_epochs": "auto"})
    assert (found.key, found.hyperparameters) == ("tune-1", {"n_epochs": 3.0})
    assert job(metadata=None, hyperparameters={"n_epochs": 2}).hyperparameters == {"n_epochs": 2.0}


@pytest.mark.parametrize("odd", ["1" + "0" * 400, "1e999", "NaN", "-1"])
def test_hyperparameters_that_cannot_be_are_left_out(odd: str) -> None:
    said = f'{{"id": "j", "status": "running", "hyperparameters": {{"n_epochs": {odd}, "batch_size": 4}}}}'
    assert replies.job(FineTuningJob.model_validate_json(said), str).hyperparameters == {"batch_size": 4.0}


def test_checks_after_training_block_only_when_they_fail() -> None:
    passed = Event.model_validate(
        {"id": "1", "type": "moderation_checks", "data": {"blocked": False}, "message": "passed"}
    )
    failed = Event.model_validate({"id": "2", "type": "moderation_checks", "data": {"blocked": True}, "message": "no"})
    told = Event.model_validate({"id": "3", "level": "error", "message": "The job failed moderation eval refusals_v3"})
    assert replies.blocked_by([passed]) is None
    assert replies.blocked_by([passed, failed]) == "no"
    assert replies.blocked_by([passed, told]) == told.message


def test_losses_come_out_of_plain_and_of_encoded_files_and_out_of_events() -> None:
    plain = b"step,train_loss,valid_loss\n1,2.5,\n2,,3.0\n3,1.25,\n"
    assert replies.steps_of_file(plain) == [Step(1, 2.5), Step(3, 1.25)]
    assert replies.steps_of_file(base64.b64encode(plain)) == [Step(1, 2.5), Step(3, 1.25)]
    assert replies.steps_of_file(b"") == []
    assert replies.steps_of_file(b"<html>not here</html>") == []
    data = [{"step": 2, "train_loss": 1.0}, {"step": 1, "train_loss": 2.0}, {"step": 3}]
    events = [Event.model_validate({"id": str(n), "type": "metrics", "data": one}) for n, one in enumerate(data)]
    assert replies.steps_of_events(events) == [Step(1, 2.0), Step(2, 1.0)]


def completion(*choices: dict[str, object], **fields: object) -> ChatReply:
    return ChatReply.model_validate({"choices": choices, **fields})


def test_every_ending_and_the_bill() -> None:
    found = replies.completion_of(
        completion(
            {"index": 1, "message": {"content": "cut"}, "finish_reason": "length"},
            {"index": 0, "message": {"content": "done"}, "finish_reason": "stop"},
            {"index": 2, "message": {"content": None}, "finish_reason": "content_filter"},
            {"index": 3, "message": {"content": None, "refusal": "I cannot"}, "finish_reason": "stop"},
            usage={"prompt_tokens": 9, "completion_tokens": 7, "prompt_tokens_details": {"cached_tokens": 4}},
        ),
        100,
        RateLimits(),
    )
    assert found.choices == (
        Choice("done", FinishReason.STOP),
        Choice("cut", FinishReason.LENGTH),
        Choice("", FinishReason.FILTERED),
        Choice("I cannot", FinishReason.REFUSED),
    )
    assert (found.prompt_tokens, found.cached_tokens, found.generated_tokens) == (9, 4, 7)
    unbilled = replies.completion_of(completion({"message": {"content": "four char"}}, usage=None), 100, RateLimits())
    assert (unbilled.prompt_tokens, unbilled.generated_tokens) == (100, 3)


@pytest.mark.parametrize("odd", [1e30, 10**30, -5, "many", None, [3], 2.5, float("nan")])
def test_counts_that_cannot_be_are_estimated(odd: object) -> None:
    usage = {"prompt_tokens": odd, "completion_tokens": odd, "prompt_tokens_details": {"cached_tokens": odd}}
    body = json.dumps({"choices": [{"message": {"content": "four char"}}], "usage": usage})
    found = replies.completion_of(ChatReply.model_validate_json(body), 100, RateLimits())
    assert (found.prompt_tokens, found.cached_tokens, found.generated_tokens) == (100, 0, 3)


@pytest.mark.parametrize("odd", [1e30, -5])
def test_trained_tokens_that_cannot_be_are_unknown(odd: float) -> None:
    said = FineTuningJob.model_validate_json(json.dumps({"id": "j", "status": "running", "trained_tokens": odd}))
    assert replies.job(said, str).trained_tokens is None


def test_steps_and_losses_that_cannot_be_are_left_out() -> None:
    odd = b"step,train_loss\n1e300,1.0\ninf,1.0\n-1,1.0\n2,nan\n3,1e999\n4,0.5\n"
    assert replies.steps_of_file(odd) == [Step(4, 0.5)]


def test_a_schema_is_called_strict_only_when_the_server_would_take_it() -> None:
    def strict(schema: dict[str, object]) -> object:
        body = bodies.chat(ChatRequest("m", (Turn("user", "hi"),), 5, schema=schema), Limit.NEW)
        return body["response_format"]["json_schema"]["strict"]  # type: ignore[index]

    closed = {
        "type": "object",
        "properties": {"a": {"type": "string"}},
        "required": ["a"],
        "additionalProperties": False,
    }
    assert strict(closed) is True
    assert strict({**closed, "required": []}) is False
    assert strict({**closed, "properties": {"a": {"type": "object", "properties": {"b": {}}}}}) is False


def test_what_is_left_at_its_default_is_not_sent() -> None:
    body = bodies.chat(ChatRequest("m", (Turn("user", "hi"),), 5), Limit.OLD)
    assert body == {"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 5, "temperature": 0.0}
