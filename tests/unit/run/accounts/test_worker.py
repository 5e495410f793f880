"""One worker per account: whoever comes after a driver that was killed waits until the old worker is dead too."""

from __future__ import annotations

import asyncio
import errno
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from engine import registry
from engine.domain.adapters import Kind
from engine.domain.conversation import Turn
from engine.domain.errors import RunLockedError
from engine.domain.quota import Quota
from engine.domain.sweep import Account
from engine.ports.chat import ChatRequest, Choice, Completion, FinishReason
from engine.ports.provider_errors import DeniedError
from engine.run.accounts.replies import ReplyLog
from engine.run.accounts.worker import AccountWorker
from engine.store.layout import RunDirectory

ACCOUNT = Account(provider="hosted/openai", base_url="http://127.0.0.1:9/v1", key_env="HOST_TEST_KEY")


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOST_TEST_KEY", "sk-test-host")


def test_a_worker_waits_for_the_death_of_the_one_before_it(tmp_path: Path) -> None:
    line = [sys.executable, Path(__file__).with_name("old_worker.py"), str(tmp_path), ACCOUNT.model_dump_json()]
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as old:
        assert old.stdout is not None
        assert old.stdout.readline() == "connected\n"
        with pytest.raises(RunLockedError, match="ours"):
            AccountWorker("ours", ACCOUNT, RunDirectory(tmp_path), patience=0.05)
        AccountWorker("theirs", ACCOUNT, RunDirectory(tmp_path), patience=0.05).close()
        hosts: list[AccountWorker] = []
        waiting = threading.Thread(target=lambda: hosts.append(AccountWorker("ours", ACCOUNT, RunDirectory(tmp_path))))
        waiting.start()
        waiting.join(0.2)
        assert hosts == []
        old.kill()
        waiting.join(30)
        assert len(hosts) == 1
        hosts[0].close()


@pytest.mark.usefixtures("acme")
def test_where_replies_cannot_be_kept_no_more_are_bought(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACME_CLOUD_KEY", "none")
    registry.refresh()
    sent: list[ChatRequest] = []

    class Session:
        async def complete(self, request: ChatRequest) -> Completion:
            sent.append(request)
            await asyncio.sleep(0.01)
            return Completion((Choice("well", FinishReason.STOP),), 1, 0, 1)

        async def batches(self) -> dict[str, str]:
            return {}

        async def close(self) -> None:
            """Hold nothing open."""

    def full(log: ReplyLog, *_: object) -> None:
        del log
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(registry.adapter(Kind.PROVIDER, "acme/cloud"), "connect", lambda _: Session(), raising=False)
    monkeypatch.setattr(ReplyLog, "write", full)
    account = Account(provider="acme/cloud", quota=Quota(max_in_flight=2))
    worker = AccountWorker("ours", account, RunDirectory(tmp_path))
    requests = [ChatRequest("m", (Turn("user", str(number)),), 8) for number in range(50)]
    with pytest.raises(OSError, match="No space left"):
        next(worker.complete_all({"stage": requests}, urgent=False))
    before = len(sent)
    time.sleep(0.2)
    assert len(sent) == before < 10
    worker.close()


def test_a_worker_that_is_closed_or_cannot_connect_keeps_nobody_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):
        AccountWorker("ours", ACCOUNT, RunDirectory(tmp_path), patience=0.05).close()
    monkeypatch.delenv("HOST_TEST_KEY")
    for _ in range(2):
        with pytest.raises(DeniedError):
            AccountWorker("ours", ACCOUNT, RunDirectory(tmp_path), patience=0.05)
