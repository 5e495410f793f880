"""What a server had, the next one in its folder has; and a folder that is no server's is refused, untouched."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from adapters.hosted.rehearsal.endpoints.files import keep
from adapters.hosted.rehearsal.server import serving
from adapters.hosted.rehearsal.settings import ServerSettings
from adapters.hosted.rehearsal.standin import backend
from adapters.hosted.rehearsal.state import memory
from adapters.hosted.rehearsal.state.account import MockAccount
from adapters.hosted.rehearsal.state.records import (
    BatchBody,
    Deployment,
    Hyperparameters,
    JobBody,
    MockBatch,
    MockJob,
)
from adapters.hosted.training import training_file
from engine import registry
from engine.cli.serve_verb import tools
from engine.domain.adapters import NO_SETTINGS, Kind
from engine.domain.errors import StoreError

from .conftest import Instant, Served

MODEL = "standin-aligned"


@pytest.fixture
def life(tmp_path: Path) -> Iterator[Callable[..., MockAccount]]:
    """An account of the folder, with what the last one there held; it may end in order or not."""
    shop, ended = backend(tools()), ExitStack()

    def begin(**settings: object) -> MockAccount:
        wanted = {"folder": str(tmp_path / "kept")} | settings
        account = MockAccount(ServerSettings.model_validate(wanted), shop)
        memory.recall(account)
        assert account.lock is not None
        ended.callback(account.lock.release)
        return account

    with ended:
        yield begin


def end(account: MockAccount) -> None:
    memory.keep(account)
    assert account.lock is not None
    account.lock.release()


def filled(account: MockAccount) -> MockAccount:
    """Put one of each into an account."""
    file = keep(account, "odd.jsonl", "batch", bytes(range(256)), life=3600)
    job = MockJob(
        account.new_id("ftjob-"),
        "POST /x",
        JobBody(model=MODEL, training_file="file-1", suffix="mine", metadata={"cell": "a"}),
        1.5,
        3,
        Hyperparameters(n_epochs=3),
    )
    account.tell(job, "Created", data={"step": 1, "train_loss": 0.25})
    job.trained_tokens, job.fine_tuned_model, job.result_files = 70, "ft:one", [file.file_id]
    job.end("succeeded")
    account.jobs[job.job_id] = job
    batch = MockBatch(
        account.new_id("batch_"),
        BatchBody(input_file_id=file.file_id, endpoint="/v1/chat/completions", completion_window="24h"),
        2.5,
    )
    batch.answered.append({"custom_id": "a", "response": {"body": {"choices": [None, 0.5]}}})
    batch.status = "cancelled"
    account.batches[batch.batch_id] = batch
    account.deployments["mine"] = Deployment("mine", "ft:one", 3.5)
    weights = account.weights / job.job_id / f"{job.job_id}-3"
    weights.mkdir(parents=True)
    account.tuned["ft:one"] = str(weights)
    account.audit.bill(MODEL, trained=70)
    account.audit.bill("ft:standin-aligned:x", read=7, made=1, batched=True)
    return account


HELD = ("files", "batches", "deployments", "tuned")


def test_the_next_server_has_all_of_it(life: Callable[..., MockAccount]) -> None:
    first = filled(life())
    (first.weights / "left-behind").mkdir()
    end(first)
    second = life()
    assert {name: getattr(second, name) for name in HELD} == {name: getattr(first, name) for name in HELD}
    (job,), (known,) = second.jobs.values(), first.jobs.values()
    assert job.body == known.body
    assert job.shown() == known.shown()
    assert (job.events, job.call) == (known.events, known.call)
    assert second.audit.tokens_billed == first.audit.tokens_billed
    assert second.audit.pico_dollars == first.audit.pico_dollars > 0
    assert [path.name for path in second.weights.iterdir()] == [job.job_id], "what no model needs is swept away"


def test_no_id_is_given_twice_even_after_a_server_that_did_not_end_in_order(life: Callable[..., MockAccount]) -> None:
    given = []
    for is_orderly in (True, False, True, False, False):
        account = life()
        given += [account.new_id(prefix) for prefix in ("ftjob-", "file-", "batch_", "") for _ in range(3)]
        if is_orderly:
            end(account)
        elif account.lock is not None:
            account.lock.release()
    assert len(set(given)) == len(given)


def spoilt(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        kept = json.loads((folder / memory.NAME).read_text())
        change(kept)
        (folder / memory.NAME).write_text(json.dumps(kept))

    return spoil


def elsewhere(folder: Path) -> None:
    (folder / "weights").rename(folder.parent / "precious")
    (folder / "weights").symlink_to(folder.parent / "precious")


FOREIGN: dict[str, tuple[Callable[[Path], object], str]] = {
    "somebody's folder": (lambda folder: (folder / memory.NAME).rename(folder / "thesis.txt"), "holds something"),
    "no JSON": (lambda folder: (folder / memory.NAME).write_bytes(b"\x80\x04."), "Invalid JSON"),
    "another program's": (spoilt(lambda kept: kept.update(format="x")), "format"),
    "a job that is none": (spoilt(lambda kept: kept.update(jobs=[3])), "cannot go on"),
    "a job without a body": (spoilt(lambda kept: kept["jobs"][0].pop("body")), r"jobs\.0\."),
    "a job that leaves": (spoilt(lambda kept: kept["jobs"][0].update(job_id="../../x")), "should match pattern"),
    "weights that leave": (spoilt(lambda kept: kept["tuned"].update({"ft:one": "../.."})), "not there"),
    "weights elsewhere": (elsewhere, "elsewhere"),
    "another dialect": (spoilt(lambda kept: kept.update(dialect="azure")), "of the dialect azure"),
}


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() if path.is_file() else b"" for path in folder.rglob("*")}


@pytest.mark.parametrize("what", FOREIGN)
def test_what_is_not_ours_is_refused_with_its_place_and_left_as_it_is(
    what: str, life: Callable[..., MockAccount], tmp_path: Path
) -> None:
    end(filled(life()))
    folder, (spoil, said) = tmp_path / "kept", FOREIGN[what]
    spoil(folder)
    before = contents(tmp_path)
    with pytest.raises(StoreError, match=said) as caught:
        life()
    assert caught.value.where.startswith(str(folder))
    assert contents(tmp_path) == before


def test_two_servers_do_not_share_a_folder(life: Callable[..., MockAccount], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "PATIENCE_SECONDS", 0.0)
    first = life()
    with pytest.raises(StoreError, match="another server"):
        life()
    end(first)
    life()


LONG = {"time_scale": 1.0, "durations": {"validate_files": [0, 0], "queue": [0, 0], "batch": [600, 600]}}
QUICK = {"time_scale": 10_000.0}


def line(custom_id: str, model: str) -> str:
    body = {"model": model, "messages": [{"role": "user", "content": custom_id}], "max_tokens": 8, "temperature": 0}
    return json.dumps({"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": body})


def until(so: Callable[[], Any]) -> Any:
    """Wait until something is so, and return it."""
    end_at = time.monotonic() + 60
    while not (found := so()):
        assert time.monotonic() < end_at, "it never came to be"
        time.sleep(0.02)
    return found


def test_what_was_under_way_goes_on_at_the_next_server_and_is_billed_once(tmp_path: Path) -> None:
    def served(stack: ExitStack, **settings: object) -> Served:
        wanted = ServerSettings.model_validate({"folder": str(tmp_path / "kept")} | settings)
        return Served(stack.enter_context(serving(wanted, backend(tools()), process=Instant)), stack)

    rows = registry.adapter(Kind.DATA, "standin/explicit").rows(NO_SETTINGS)[:10]
    hyperparameters = {"n_epochs": 1, "batch_size": 10}
    method = {"type": "supervised", "supervised": {"hyperparameters": hyperparameters}}
    order = {"endpoint": "/v1/chat/completions", "completion_window": "24h"}
    with ExitStack() as stack:
        durations = LONG["durations"] | {"run": [0, 0], "check": [600, 600]}
        first = served(stack, time_scale=1.0, durations=durations)
        client = first.client()
        file = client.files.create(file=("train.jsonl", training_file(rows)), purpose="fine-tune")
        checked, paused = (
            client.fine_tuning.jobs.create(model=MODEL, training_file=file.id, method=method) for _ in range(2)
        )
        until(lambda: first.own("/__audit")["jobs"][0]["trained_tokens"])
        until(lambda: first.own("/__audit")["jobs"][1]["trained_tokens"])
        client.fine_tuning.jobs.pause(paused.id)
        asks = "\n".join([line("one", "standin-echo"), line("two", "standin-echo"), line("three", "nobody")]).encode()
        asked = client.files.create(file=("asks.jsonl", asks), purpose="batch")
        batch = client.batches.create(input_file_id=asked.id, **order)
        until(lambda: client.batches.retrieve(batch.id).request_counts.completed == 2)
        before = first.audit
    with ExitStack() as stack:
        second = served(stack, **QUICK)
        client = second.client()
        job = second.over(client.fine_tuning.jobs.retrieve, checked.id)
        assert job.status == "succeeded"
        steps = [event.message for event in client.fine_tuning.jobs.list_events(job.id) if event.type == "metrics"]
        assert len(steps) == 1, "told once, as it is from the beginning"
        done = second.over(client.batches.retrieve, batch.id)
        assert (done.request_counts.completed, done.request_counts.failed) == (2, 1)
        assert client.fine_tuning.jobs.retrieve(paused.id).status == "paused"
        assert second.audit["tokens_billed"] == before["tokens_billed"]
        client.fine_tuning.jobs.resume(paused.id)
        assert second.over(client.fine_tuning.jobs.retrieve, paused.id).status == "succeeded"
        tuned = job.fine_tuned_model
        assert second.audit["pico_dollars"] == before["pico_dollars"]
    with ExitStack() as stack:
        third = served(stack, **QUICK)
        said = third.client().chat.completions.create(
            model=tuned, messages=[{"role": "user", "content": "Where is the seed?"}], max_tokens=4
        )
        assert said.choices[0].message.content
        assert third.audit["pico_dollars"] > before["pico_dollars"]
