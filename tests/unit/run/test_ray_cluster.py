"""A Ray cluster that is not there, an address that is none, and folders that Ray cannot use are said in plain words, at once."""

from __future__ import annotations

import os
import socket
import tempfile
import threading
import time
from pathlib import Path

import pytest

from engine.domain.errors import RunError
from engine.run.drive import handle
from engine.run.drive.handle import ExecutorHandle
from engine.run.executors.ray_cluster import FOLDER_BYTES, Cluster, make_folder
from engine.run.executors.workers import Executor


def free_address() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


@pytest.mark.parametrize(
    ("address", "what"),
    [
        (None, "no Ray cluster is at `.*`: Connection refused"),
        ("127.0.0.1:99999", "no Ray cluster is at"),
        ("ray://127.0.0.1:10001", "an address of Ray Client"),
        ("head", "`head` is no address of a Ray cluster"),
        ("head:", "`head:` is no address of a Ray cluster"),
    ],
)
def test_a_cluster_that_cannot_be_joined_is_an_error_that_says_why(
    monkeypatch: pytest.MonkeyPatch, address: str | None, what: str
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address or free_address())
    with pytest.raises(RunError, match=what) as caught:
        Cluster()
    assert caught.value.where == "RAY_ADDRESS or --ray-address"
    assert caught.value.todo


def test_ray_gets_a_folder_with_a_short_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    long = tmp_path / ("x" * 90)
    long.mkdir()
    monkeypatch.setenv("RAY_TMPDIR", str(long))
    made = make_folder()
    made.rmdir()
    assert len(os.fsencode(made)) <= FOLDER_BYTES
    assert list(long.iterdir()) == []


def test_where_ray_can_have_no_folder_it_says_what_would_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tempfile, "mkdtemp", refuse)
    with pytest.raises(RunError, match="a path of at most 24 bytes"):
        make_folder()


def test_a_run_that_is_given_up_does_not_wait_for_its_executor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handle, "PATIENCE_SECONDS", 0.05)
    answers, closed = threading.Event(), threading.Event()

    class Late:
        def close(self) -> None:
            closed.set()

    def make() -> Executor:
        answers.wait(20)
        return Late()  # type: ignore[return-value]

    began = time.monotonic()
    with ExecutorHandle(make) as coming:
        coming.start()
        coming.give_up()
    assert time.monotonic() - began < 10
    answers.set()
    assert closed.wait(10), "whenever it comes, it is closed"
