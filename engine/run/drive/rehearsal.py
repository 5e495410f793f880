"""A rehearsal: the same sweep against local mock servers, at the providers' quotas and prices, with time run faster.

What the servers are told, what the sweep is told of them, and where a rehearsal that was stopped goes on.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import count, takewhile
from pathlib import Path

from engine import registry
from engine.domain.adapters import Kind
from engine.domain.errors import PlanError, RunError, StoreError
from engine.domain.price import Quote
from engine.domain.quota import Quota
from engine.domain.sweep import Account
from engine.plan.tariff import Bought
from engine.ports.mock_server import MockModel, MockOrder, MockServer
from engine.run.drive import lock
from engine.run.drive.adopt import claim
from engine.run.drive.order import Ending
from engine.store.layout import RunDirectory
from engine.store.state import State

KEY_ENV = "DOSIMETER_REHEARSAL_KEY_{number}"
"""The variables of this process that hold the servers' keys, from 1."""

START_SECONDS = 60.0
PER_MINUTE = ("requests_per_minute", "tokens_per_minute")
SERVE = (sys.executable, "-m", "engine.cli", "serve-standin")


@dataclass(frozen=True, slots=True)
class Wanted:
    """The mock server that an account wants: the account's provider, and the server's settings."""

    provider: str
    settings: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Served:
    """A mock server that stands for an account.

    Attributes:
        account: The account's name.
        base_url: Where it listens.
        key_env: The variable of this process that holds its key.
        server: What it is.
    """

    account: str
    base_url: str
    key_env: str
    server: MockServer


def mock_server(provider: str) -> MockServer:
    """Return the mock server of a provider.

    Raises:
        PlanError: It has none.
        UnknownAdapterError: There is no such provider.
    """
    server = registry.adapter(Kind.PROVIDER, provider).rehearsal()
    if server is None:
        what = f"`{provider}` brings no local mock server to rehearse with"
        raise PlanError(what, where="run.accounts", todo="run it, or point the account's base_url at a server of yours")
    return server


def going_on(first: Path) -> Path:
    """Return the run directory of the newest rehearsal that has not ended as complete, or of a new one.

    The first one goes to `first`; the others have a number behind that name, from 2.
    """
    names = (first if number == 1 else first.with_name(f"{first.name}-{number}") for number in count(1))
    there = list(takewhile(Path.exists, names))
    new = first.with_name(f"{first.name}-{len(there) + 1}") if there else first
    return next((path for path in reversed(there) if _is_stopped(RunDirectory(path))), new)


def _is_stopped(run: RunDirectory) -> bool:
    """Whether a rehearsal there can go on; what cannot be read, or is driven now, is left alone."""
    try:
        if not run.rehearsal.is_dir() or lock.is_held(run):
            return False
        meta = _meta(run)
    except (OSError, StoreError):
        return False
    return meta.get("rehearsal") == "true" and meta.get("ending") != Ending.COMPLETE


def _meta(run: RunDirectory) -> Mapping[str, str]:
    with closing(State.peek(run)) as state:
        return state.meta()


def make_room(run: RunDirectory) -> None:
    """Make the folder in a run directory where its servers keep what they have.

    Raises:
        StoreError: The directory is somebody else's, or a real run's.
        RunLockedError: Another process drives it.
    """
    claim(run)
    with lock.held(run):
        if run.state.is_file() and _meta(run).get("rehearsal") == "false":
            what = "the results in this run directory are real, and these would be a rehearsal's"
            raise StoreError(what, where=str(run.root), todo="choose another --out")
        run.rehearsal.mkdir(exist_ok=True, mode=0o700)


def mock_order(account: Account, what: Mapping[Bought, Quote | None], folder: Path, speed: float) -> MockOrder:
    """Return what the mock server of an account is to be like, by what the plan buys there and at what prices."""
    usd = {one: {} if quote is None else {row.unit: row.usd for row in quote.rows} for one, quote in what.items()}
    models = [MockModel(one.model, one.kind, one.is_tuned, usd[one]) for one in what]
    return MockOrder(faster(account.quota, speed), models, folder, speed)


def faster(quota: Quota, speed: float) -> Quota:
    """Return a quota whose limits a minute are so many times higher."""
    limits = {name: limit for name in PER_MINUTE if (limit := getattr(quota, name)) is not None}
    return quota.model_copy(update={name: max(1, round(limit * speed)) for name, limit in limits.items()})


def merged(own: Mapping[str, object], more: Mapping[str, object]) -> dict[str, object]:
    """Return settings with others over them, section by section."""
    found = dict(own)
    for name, value in more.items():
        mine = found.get(name)
        found[name] = merged(mine, value) if isinstance(mine, Mapping) and isinstance(value, Mapping) else value
    return found


def overrides(served: Served, account: Account, speed: float) -> list[str]:
    """Return the `--set` texts that point an account at its server, with its quota as much faster."""
    path = f"run.accounts.{served.account}"
    quota = faster(account.quota, speed)
    return [
        f"{path}.base_url={served.base_url}",
        f"{path}.key_env={served.key_env}",
        f"{path}.poll_seconds={max(0.1, account.poll_seconds / speed)}",
        *(f"{path}.quota.{name}={limit}" for name in PER_MINUTE if (limit := getattr(quota, name)) is not None),
    ]


@contextmanager
def serving(wanted: Mapping[str, Wanted]) -> Iterator[list[Served]]:
    """Start the server that each account wants, by its name, and stop them all at the end.

    Raises:
        RunError: One does not start.
    """
    processes: list[subprocess.Popen[bytes]] = []
    with tempfile.TemporaryDirectory(prefix="dosimeter-rehearsal-") as name:
        folder = Path(name)
        try:
            for account, own in wanted.items():
                (folder / f"{account}.yaml").write_text(json.dumps(own.settings), encoding="utf-8")  # JSON is YAML
                processes.append(_started(folder, account, own.provider))
            served = []
            for number, (account, process) in enumerate(zip(wanted, processes, strict=True), start=1):
                url, key_env = _url(folder, account, process), KEY_ENV.format(number=number)
                one = Served(account, url, key_env, mock_server(wanted[account].provider))
                os.environ.update(one.server.environment(url, key_env))
                served.append(one)
            yield served
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                process.wait()


def _started(folder: Path, account: str, provider: str) -> subprocess.Popen[bytes]:
    files = ["--settings", str(folder / f"{account}.yaml"), "--ready-file", str(folder / f"{account}.url")]
    line = [*SERVE, "--provider", provider, "--port", "0", "--until-eof", *files]
    with (folder / f"{account}.log").open("wb") as log:
        return subprocess.Popen(  # noqa: S603 - this very program
            line,
            stdin=subprocess.PIPE,  # whose other end closes when this process ends, however it ends
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C is the driver's to understand
        )


def _url(folder: Path, account: str, process: subprocess.Popen[bytes]) -> str:
    """Wait for a server, and return where it listens."""
    ready, deadline = folder / f"{account}.url", time.monotonic() + START_SECONDS
    while not ready.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            said = (folder / f"{account}.log").read_text(encoding="utf-8", errors="replace")
            raise RunError(f"the local mock server did not start: {said.strip()[-1000:]}", where=account)
        time.sleep(0.05)
    return ready.read_text(encoding="utf-8").strip()
