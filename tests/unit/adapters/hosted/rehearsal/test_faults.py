"""What goes wrong on purpose, as the vendor's client meets it, and what the audit says really happened."""

from __future__ import annotations

import time
from typing import Any

import openai
import pytest

from adapters.hosted.rehearsal.settings import Fault, FaultKind
from adapters.hosted.rehearsal.state.faults import Faults

HELLO = [{"role": "user", "content": "hello"}]
ROW = b'{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n'


def ask(client: Any) -> Any:
    return client.chat.completions.create(model="standin-echo", messages=HELLO, max_tokens=5)


def test_the_seed_decides_whom_faults_befall() -> None:
    fault = Fault(kind=FaultKind.ERROR, probability=0.3)

    def struck(seed: int) -> list[bool]:
        faults = Faults([fault], seed)
        return [faults.strikes(FaultKind.ERROR, "GET /") is not None for _ in range(200)]

    assert struck(1) == struck(1) != struck(2)
    assert 30 < sum(struck(1)) < 90


def test_a_fault_waits_befalls_so_many_and_looks_at_the_path() -> None:
    faults = Faults([Fault(kind=FaultKind.RESET, on="POST /v1/files", after=2, count=3)], 0)
    assert not any(faults.strikes(FaultKind.RESET, "GET /v1/files") for _ in range(9))
    hits = [faults.strikes(FaultKind.RESET, "POST /v1/files") is not None for _ in range(8)]
    assert hits == [False, False, True, True, True, False, False, False]
    assert faults.shown()[0]["befell"] == 3


@pytest.mark.parametrize(
    ("kind", "error", "code"),
    [
        ("throttled", openai.RateLimitError, "rate_limit_exceeded"),
        ("slow_down", openai.RateLimitError, "slow_down"),
        ("insufficient_quota", openai.RateLimitError, "insufficient_quota"),
        ("forbidden", openai.PermissionDeniedError, "permission_denied"),
        ("error", openai.InternalServerError, None),
        ("overloaded", openai.InternalServerError, "server_is_overloaded"),
    ],
)
def test_errors_come_once_and_then_the_answer(serve: Any, kind: str, error: type[Exception], code: str | None) -> None:
    served = serve(faults=[{"kind": kind, "count": 1, "seconds": 7.0}])
    with pytest.raises(error) as caught:
        ask(served.client())
    assert caught.value.code == code
    if kind in {"throttled", "slow_down", "overloaded"}:
        assert caught.value.response.headers["retry-after"] == "7"
    ask(served.client())
    assert served.audit["tokens_billed"]["standin-echo"]["output"] <= 5


@pytest.mark.parametrize(("kind", "billed"), [("reset", 0), ("lost_reply", 1)])
def test_a_broken_connection_is_ambiguous_to_the_client_alone(serve: Any, kind: str, billed: int) -> None:
    served = serve(faults=[{"kind": kind, "count": 1}])
    with pytest.raises(openai.APIConnectionError):
        ask(served.client())
    audit = served.audit
    assert audit["dropped"] == 1
    assert audit["by_code"] == {kind: 1}
    assert len(audit["tokens_billed"]) == billed
    ask(served.client())


@pytest.mark.slow
def test_the_sdks_own_retries_make_three_jobs_of_one_call_and_the_audit_knows(serve: Any) -> None:
    served = serve(faults=[{"kind": "lost_reply", "on": "POST /v1/fine_tuning/jobs", "count": 2}], time_scale=1.0)
    client = served.client(max_retries=2)
    file = client.files.create(file=("t.jsonl", ROW * 10), purpose="fine-tune")
    client.fine_tuning.jobs.create(model="standin-aligned", training_file=file.id, metadata={"cell": "one"})
    assert served.audit["jobs_created"] == 3
    assert len(list(client.fine_tuning.jobs.list(metadata={"cell": "one"}))) == 3


def test_a_reply_may_be_cut_off_or_late(serve: Any) -> None:
    served = serve(faults=[{"kind": "truncated", "count": 1}])
    with pytest.raises(ValueError, match=r"Expecting|Unterminated|EOF"):
        ask(served.client())
    served.own("/__faults", {"faults": [{"kind": "stall", "seconds": 0.4, "count": 1}]})
    with pytest.raises(openai.APITimeoutError):
        ask(served.client(timeout=0.1))
    ask(served.client())
    while served.audit["in_flight"]:
        time.sleep(0.02)
    assert served.audit["accepted"] == 3  # what the client gave up on was done
    assert served.own("/__faults")["faults"][0]["befell"] == 1


def test_lists_may_lag_and_files_may_vanish(serve: Any) -> None:
    served = serve(faults=[{"kind": "list_lag", "seconds": 60.0, "count": 1}])
    client = served.client()
    file = client.files.create(file=("t.jsonl", ROW), purpose="fine-tune")
    assert client.files.list().data == []
    assert [found.id for found in client.files.list()] == [file.id]
    served.own("/__faults", {"faults": [{"kind": "file_expires", "seconds": 0.0}]})
    gone = client.files.create(file=("t.jsonl", ROW), purpose="fine-tune")
    with pytest.raises(openai.BadRequestError) as caught:
        client.fine_tuning.jobs.create(model="standin-aligned", training_file=gone.id)
    assert caught.value.code == "invalid_file"


def test_an_answer_may_be_withheld(serve: Any) -> None:
    served = serve(faults=[{"kind": "content_filter", "count": 1}])
    assert ask(served.client()).choices[0].finish_reason == "content_filter"
    assert ask(served.client()).choices[0].finish_reason in {"stop", "length"}
