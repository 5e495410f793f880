"""Rehearsals through the real command line: no key, no network, and whatever was stopped goes on."""

from __future__ import annotations

import json
import re
import socketserver
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from engine.store.layout import RunDirectory
from engine.store.reader import open_results
from engine.store.state import State

from .command import Cli
from .hosted import INLINE, SPEC

pytestmark = pytest.mark.slow


class Recorder(socketserver.ThreadingTCPServer):
    """A proxy that refuses everything, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []
        super().__init__(("127.0.0.1", 0), Refuse)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Refuse(socketserver.StreamRequestHandler):
    server: Recorder

    def handle(self) -> None:
        self.server.asked.append(self.rfile.readline())
        self.wfile.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Recorder]:
    """A real proxy, which the environment names for everything."""
    with Recorder() as recorder:
        thread = threading.Thread(target=recorder.serve_forever, daemon=True)
        thread.start()
        for name in ("http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, recorder.url)
            monkeypatch.setenv(name.upper(), recorder.url)
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        yield recorder
        recorder.shutdown()
        thread.join()


def rehearsed(said: str, errors: str) -> tuple[str, str]:
    """What a rehearsal was billed, and what its books say, in dollars."""
    billed, books = re.search(r"\$([\d.]+)\s*$", said), re.search(r"The ledger: \$([\d.]+) in", errors)
    assert billed is not None, said
    assert books is not None, errors
    return billed[1], books[1]


def kept_jobs(folder: Path) -> list[dict[str, Any]]:
    """The jobs that a rehearsal's server has written down."""
    found: list[dict[str, Any]] = json.loads((folder / "rehearsal" / "ours" / "memory.json").read_text())["jobs"]
    return found


def test_a_rehearsal_needs_no_key_goes_on_where_it_was_stopped_and_never_passes_for_results(
    cli: Cli, proxy: Recorder, tmp_path: Path
) -> None:
    spec = SPEC.format(seed=11, url="http://127.0.0.1:9/v1", key_env="NO_SUCH_KEY")
    (tmp_path / "one.yaml").write_text(spec.replace("standin-aligned", "gpt-4o-mini-2024-07-18"))
    again = ("rehearse", "one.yaml", "--speed", "6000", *INLINE)
    stopped = cli(tmp_path, *again, "--set", "run.budget.usd=0.0025", code=4)
    folder = RunDirectory(tmp_path / "runs" / "hosted-rehearsal")
    (tuned,) = kept_jobs(folder.root)
    assert rehearsed(stopped.stdout, stopped.stderr)[0] == rehearsed(stopped.stdout, stopped.stderr)[1]
    assert folder.rehearsal.stat().st_mode & 0o777 == 0o700
    done = cli(tmp_path, *again, "--set", "run.budget.usd=1")
    assert "stages to run, " in done.stderr, "in the same directory"
    billed, books = rehearsed(done.stdout, done.stderr)
    assert billed == books != rehearsed(stopped.stdout, stopped.stderr)[0]
    jobs = kept_jobs(folder.root)
    assert jobs[0] == tuned
    assert len({job["body"]["metadata"]["dosimeter"] for job in jobs}) == len(jobs) == 2
    with open_results(folder.root) as results:
        assert results.table("SELECT DISTINCT status FROM v_cells").to_pylist() == [{"status": "done"}]
    assert not (tmp_path / "runs" / "hosted-rehearsal-2").exists()
    assert proxy.asked == [], "nothing leaves this machine"
    with closing(State.open(RunDirectory(tmp_path / "real"))) as state:
        state.put_meta({"sweep": "hosted", "rehearsal": "false"})
    assert "the results in this run directory are real" in cli(tmp_path, *again, "--out", "real", code=5).stderr
