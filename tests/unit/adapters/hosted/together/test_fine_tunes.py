"""What Together is asked to train, and what its replies say."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

import pytest

from adapters.hosted.together.fine_tunes import FineTune, epoch, ordered
from engine import registry
from engine.domain.adapters import Kind
from engine.ports.provider import JobOrder, JobState
from engine.ports.provider_errors import RejectedError

KEY = "tune-0123456789abcdef0123456789abcdef"
ORDER = JobOrder(KEY, "meta/llama", "file-1", 3, 5, None, 7, "s", 1e-4)


def test_a_job_is_found_by_its_suffix_and_trained_as_at_home_when_nobody_chooses() -> None:
    body = ordered(ORDER)
    home = {name: field.default for name, field in registry.settings_of(Kind.TUNER, "local/sft").model_fields.items()}
    assert body["suffix"] == KEY
    assert len(KEY) <= 40  # the longest suffix
    assert (body["n_epochs"], body["batch_size"], body["learning_rate"], body["random_seed"]) == (3, 5, 1e-4, 7)
    lora = body["training_type"]
    assert isinstance(lora, dict)
    assert (lora["type"], lora["lora_r"], lora["lora_dropout"]) == ("Lora", home["rank"], home["dropout"])
    assert (lora["lora_alpha"], home["alpha"]) == (2 * home["rank"], None)
    assert lora["lora_trainable_modules"] == home["targets"][0]
    assert home["schedule"] == "constant"
    assert body["lr_scheduler"] == {"lr_scheduler_type": "linear", "lr_scheduler_args": {"min_lr_ratio": 1.0}}
    assert (body["weight_decay"], body["warmup_ratio"]) == (home["weight_decay"], home["warmup_steps"])
    assert body["max_grad_norm"] == home["max_grad_norm"]


def test_what_is_left_to_the_provider_is_not_sent() -> None:
    assert not {"batch_size", "learning_rate"} & ordered(replace(ORDER, batch_size=None, lr=None)).keys()


@pytest.mark.parametrize("order", [replace(ORDER, key="a key of another form"), replace(ORDER, lr_multiplier=2.0)])
def test_an_order_that_could_not_be_found_or_carried_out_is_refused_before_it_costs(order: JobOrder) -> None:
    with pytest.raises(RejectedError):
        ordered(order)


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("pending", JobState.WAITING),
        ("queued", JobState.WAITING),
        ("running", JobState.RUNNING),
        ("compressing", JobState.RUNNING),
        ("uploading", JobState.RUNNING),
        ("cancel_requested", JobState.RUNNING),
        ("cancelled", JobState.CANCELLED),
        ("error", JobState.FAILED),
        ("user_error", JobState.FAILED),
        ("completed", JobState.SUCCEEDED),
        ("a state of tomorrow", JobState.WAITING),
    ],
)
def test_every_state_is_one_of_ours(status: str, state: JobState) -> None:
    job = FineTune(id="ft-1", status=status, model_output_name="us/llama:x:ft-1", token_count=0).job()
    assert job.state is state
    assert (job.tuned_model is not None) == (state is JobState.SUCCEEDED)
    assert job.trained_tokens is None  # it says 0 until it has counted


@pytest.mark.parametrize(
    ("fields", "key"),
    [
        ({"suffix": KEY}, KEY),
        ({"model_output_name": f"us/meta-llama/Llama-3-8b:{KEY}:ft-3cab62db-643b"}, KEY),
        ({"model_output_name": f"us/Llama-3-8b-{KEY}-9cbbd9b3"}, KEY),
        ({"suffix": "my-experiment"}, ""),
        ({"model_output_name": "us/Llama-3-8b-9cbbd9b3"}, ""),
        ({}, ""),
    ],
)
def test_a_key_is_found_wherever_the_reply_has_it(fields: dict[str, str], key: str) -> None:
    assert FineTune(id="ft-1", status="completed", **fields).job().key == key


def test_what_a_job_was_trained_with_is_what_it_says_in_numbers() -> None:
    told = {"id": "ft-1", "status": "running", "n_epochs": 3, "batch_size": "max", "learning_rate": 1e-4}
    job = FineTune.model_validate({**told, "token_count": 900, "created_at": "1970-01-01T00:01:00.500Z"}).job()
    assert job.hyperparameters == {"n_epochs": 3, "learning_rate": 1e-4}
    assert (job.trained_tokens, job.created_at) == (900, 60.5)
    assert epoch(datetime(1970, 1, 1, 0, 1)) == 60  # noqa: DTZ001 - a server may leave the zone out
