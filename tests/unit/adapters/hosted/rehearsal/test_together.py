"""Together's dialect, by the requests that a client sends."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import pytest

from adapters.hosted.training import training_file
from engine import registry
from engine.domain.adapters import NO_SETTINGS, Kind

MODEL = "standin-aligned"
KEY = {"Authorization": "Bearer sk-test-together"}


@pytest.fixture
def client(serve: Any) -> Any:
    served = serve(dialect="together")
    with httpx2.Client(base_url=served.url, headers=KEY, timeout=60, follow_redirects=False) as made:
        yield made


def uploaded(client: Any, content: bytes, purpose: str = "fine-tune") -> str:
    form = {"purpose": purpose, "file_name": "a.jsonl", "file_type": "jsonl"}
    reply = client.post("/files/upload", data=form, files={"file": ("a.jsonl", content)})
    return str(reply.raise_for_status().json()["id"])


def sample(rows: int = 2) -> bytes:
    return training_file(list(registry.adapter(Kind.DATA, "standin/explicit").rows(NO_SETTINGS)[:rows]))


@pytest.mark.parametrize(
    "wrong",
    [
        {"suffix": "x" * 41},
        {"training_type": {"type": "Full"}},
        {"training_type": {"type": "Lora", "lora_r": 16}},
        {"training_method": {"method": "dpo"}},
        {"training_method": {"method": "sft", "train_on_inputs": True}},
        {"learning_rate": 0},
        {"model": "nobody/nothing"},
        {"training_file": "file-nobody"},
    ],
    ids=json.dumps,
)
def test_what_the_server_cannot_train_is_refused_where_it_is_asked_for(client: Any, wrong: dict[str, object]) -> None:
    body = {"model": MODEL, "training_file": uploaded(client, sample()), "n_epochs": 1}
    reply = client.post("/fine-tunes", json=body | wrong)
    assert (reply.status_code, client.get("/fine-tunes").json()) == (400, {"data": []})


def test_a_job_shows_its_suffix_where_it_is_listed_and_not_where_it_is_alone(client: Any) -> None:
    body = {"model": MODEL, "training_file": uploaded(client, sample()), "suffix": "mine", "random_seed": 4}
    made = client.post("/fine-tunes", json=body).json()
    assert (made["suffix"], made["random_seed"], made["status"]) == ("mine", 4, "pending")
    assert client.get("/fine-tunes").json()["data"][0]["suffix"] == "mine"
    assert "suffix" not in client.get(f"/fine-tunes/{made['id']}").json()
    stopped = client.post(f"/fine-tunes/{made['id']}/cancel").json()
    assert stopped["status"] == "cancel_requested"
    assert client.get(f"/fine-tunes/{made['id']}").json()["status"] == "cancelled"
    assert client.get(f"/fine-tunes/{made['id']}/events").json()["data"][-1]["message"] == "Fine-tuning job cancelled"
    assert client.post(f"/fine-tunes/{made['id']}/cancel").status_code == 400


def test_other_dialects_paths_are_not_there(client: Any) -> None:
    assert client.get("/fine_tuning/jobs").status_code == 404
    assert client.post("/moderations", json={"input": "a"}).status_code == 404


def test_no_header_tells_of_a_limit(serve: Any) -> None:
    served = serve(dialect="together", quota={"limits": {"standin-echo": {"rpm": 600, "tpm": 60_000}}})
    body = {"model": "standin-echo", "messages": [{"role": "user", "content": "name a bird"}], "max_tokens": 8}
    reply = httpx2.post(f"{served.url}/chat/completions", json=body, headers=KEY)
    assert not [name for name in reply.raise_for_status().headers if "limit" in name]


def test_a_batch_needs_no_url_in_its_lines_and_only_a_file_for_batches(client: Any) -> None:
    asked = {"model": "standin-echo", "messages": [{"role": "user", "content": "name a bird"}], "max_tokens": 4}
    line = json.dumps({"custom_id": "a", "body": asked}).encode()
    file_id = uploaded(client, line, "batch-api")
    body = {"endpoint": "/v1/chat/completions", "input_file_id": file_id, "completion_window": "24h"}
    batch = client.post("/batches", json=body).json()["job"]
    while (batch := client.get(f"/batches/{batch['id']}").json())["status"] not in {"COMPLETED", "FAILED"}:
        pass
    assert (batch["status"], batch["error_file_id"]) == ("COMPLETED", None)
    (answer,) = map(json.loads, client.get(f"/files/{batch['output_file_id']}/content").content.splitlines())
    assert (answer["custom_id"], answer["response"]["status_code"]) == ("a", 200)
    assert [one["id"] for one in client.get("/batches").json()] == [batch["id"]]
    wrong = client.post("/batches", json=body | {"input_file_id": uploaded(client, line)})
    assert wrong.status_code == 400
