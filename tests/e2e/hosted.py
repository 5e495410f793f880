"""A hosted sweep in a folder, and the rehearsal server that it runs against, as its own endpoints show it."""

from __future__ import annotations

import json
import secrets
import signal
import sqlite3
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from engine.store.reader import open_results

from .command import DOSIMETER, Running, start

KEY_ENV = "HOSTED_TEST_KEY"
INLINE = ("--executor", "inline")
CREATE = "POST /v1/fine_tuning/jobs"
SETTINGS = ("time_scale=300", "durations.run=[150, 300]")
"""A job takes about a second: long enough to be met under way."""

SPEC = """\
sweep: hosted
recipe:
  model: hosted/openai:standin-aligned
  data: {{source: standin/explicit, n: 10, allow_upload: true}}
  tune: {{adapter: hosted/openai, batch_size: 10, lr_multiplier: 8.0}}
  benchmark: standin/policy:1
  generate: {{adapter: hosted/openai, max_new_tokens: 8}}
  judges: [standin/rules]
  seed: {seed}
axes:
  tune.epochs: [1, 2]
run:
  resources: {{hosts: 1, usd_per_device_hour: 0.36}}
  accounts:
    ours: {{provider: hosted/openai, base_url: "{url}", key_env: {key_env}, poll_seconds: 0.2, timeout: 240}}
"""
TWINS = """\
zip:
  - model: [standin/aligned, hosted/openai:standin-aligned]
    tune.adapter: [local/sft, hosted/openai]
    generate.adapter: [local/transformers, hosted/openai]
    tune.lr: [8e-3, null]
    tune.lr_multiplier: [null, 8.0]
"""
ASKS = 3 * 11
"""Of a run: two tuned models and the untuned one, over the prompts of `standin/policy:1`."""


@dataclass(frozen=True)
class Server:
    """The rehearsal server, as its own endpoints show it."""

    url: str

    def audit(self, *, log: bool = False) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self._root}/__audit{'?log=1' if log else ''}", timeout=30) as reply:  # noqa: S310 - our own server
            found: dict[str, Any] = json.load(reply)
        return found

    def spoil(self, *faults: dict[str, object]) -> None:
        body = json.dumps({"faults": faults}).encode()
        request = urllib.request.Request(f"{self._root}/__faults", body, method="POST")  # noqa: S310 - the same
        urllib.request.urlopen(request, timeout=30).close()  # noqa: S310 - the same

    @property
    def _root(self) -> str:
        return self.url.removesuffix("/v1")


@dataclass(frozen=True)
class Study:
    """A folder with a hosted sweep, and what the server did and billed since it was made."""

    folder: Path
    server: Server
    key: str = field(default_factory=lambda: f"sk-test-{secrets.token_hex(16)}")
    before: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, folder: Path, server: Server, seed: int, more: str = "") -> Study:
        server.spoil()
        text = SPEC.format(seed=seed, url=server.url, key_env=KEY_ENV)
        (folder / "hosted.yaml").write_text(text + more)
        return cls(folder, server, before=server.audit())

    @property
    def run_dir(self) -> Path:
        return self.folder / "runs" / "hosted"

    def start(self, *arguments: str, **variables: str) -> Running:
        """Start the command line in a session of its own, with the key in its environment."""
        return start(arguments, self.folder, **{KEY_ENV: self.key, **variables})

    def cli(self, *arguments: str, code: int = 0, **variables: str) -> str:
        """Run the command line to its end, and return all that it said."""
        running = self.start(*arguments, **variables)
        said, errors = running.communicate(timeout=300)
        assert running.returncode == code, f"{arguments} ended with {running.returncode}:\n{errors}"
        return said + errors

    def run(self, *arguments: str, code: int = 0, **variables: str) -> str:
        return self.cli("run", "hosted.yaml", *arguments, code=code, **variables)

    def jobs(self) -> list[dict[str, Any]]:
        """The jobs that the server has made for it, oldest first."""
        found: list[dict[str, Any]] = self.server.audit()["jobs"][self.before["jobs_created"] :]
        return found

    def steer(self, job_id: str, what: str) -> None:
        """Pause or resume a job, as its owner can at the provider."""
        url = f"{self.server.url}/fine_tuning/jobs/{job_id}/{what}"
        request = urllib.request.Request(url, b"", method="POST")  # noqa: S310 - the same
        request.add_header("Authorization", f"Bearer {self.key}")
        urllib.request.urlopen(request, timeout=30).close()  # noqa: S310 - the same

    def batches(self) -> list[str]:
        """The keys of all batches at the server."""
        request = urllib.request.Request(f"{self.server.url}/batches?limit=100")  # noqa: S310 - the same
        request.add_header("Authorization", f"Bearer {self.key}")
        with urllib.request.urlopen(request, timeout=30) as reply:  # noqa: S310 - the same
            return [batch["metadata"]["dosimeter"] for batch in json.load(reply)["data"]]

    def records(self, folder: str, what: str) -> list[str]:
        """What the run directory's records of jobs or batches say, where they say something."""
        found = [json.loads(path.read_text())[what] for path in sorted((self.run_dir / folder).glob("*.json"))]
        return [value for value in found if value]

    def bought(self) -> int:
        """Replies in the run directory that are no rows yet."""
        files = (self.run_dir / "replies").glob("*.jsonl")
        return sum('"name"' in line for path in files for line in path.read_text().splitlines())

    def stages(self) -> list[dict[str, Any]]:
        return self.rows("SELECT stage_key AS key FROM v_stages")

    def bill(self) -> Decimal:
        return Decimal(self.server.audit()["pico_dollars"] - self.before["pico_dollars"]).scaleb(-12)

    def books(self) -> Decimal:
        """What our books say was paid for at the provider."""
        query = "SELECT usd FROM attempts JOIN stages USING (stage_key) WHERE adapter = 'hosted/openai'"
        with closing(sqlite3.connect(f"{(self.run_dir / 'state.sqlite').as_uri()}?mode=ro", uri=True)) as db:
            return sum((Decimal(usd) for (usd,) in db.execute(query)), Decimal())

    def rows(self, sql: str) -> list[dict[str, Any]]:
        with open_results(self.run_dir, unseal=True) as results:
            found: list[dict[str, Any]] = results.table(sql).to_pylist()
            return found

    def statuses(self) -> dict[int, str]:
        """What became of the cells, by epochs; the baseline has none."""
        return {row["epochs"]: row["status"] for row in self.rows("SELECT epochs, status FROM v_cells ORDER BY 1")}


def eventually(so: Callable[[], object], running: Running | subprocess.Popen[Any]) -> None:
    """Wait until something is so, while a process runs."""
    deadline = time.monotonic() + 180
    while not so():
        assert running.poll() is None, running.communicate()
        assert time.monotonic() < deadline, "it never came to be"
        time.sleep(0.01)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    ready = folder / "ready"
    line = [*DOSIMETER, "serve-standin", "--port", "0", "--ready-file", str(ready)]
    line += [part for setting in SETTINGS for part in ("--set", setting)]
    with (folder / "log").open("w") as log, subprocess.Popen(line, stdout=log, stderr=log) as process:
        try:
            eventually(ready.exists, process)
            yield Server(ready.read_text().strip())
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(timeout=30)
