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
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import count, takewhile
from pathlib import Path
from typing import Any

from engine.domain.errors import RunError, StoreError
from engine.domain.price import PriceUnit, Quote
from engine.domain.stage import StageKind
from engine.domain.sweep import Account
from engine.plan.tariff import Bought
from engine.run.drive import lock
from engine.run.drive.adopt import claim
from engine.run.drive.order import Ending
from engine.store.layout import RunDirectory
from engine.store.state import State

KEY_ENV = "DOSIMETER_REHEARSAL_KEY"
KEY = "sk-test-rehearsal"
"""What the servers take for a key; they refuse any that could be a real one."""

START_SECONDS = 60.0
DAY_SECONDS = 86_400
PER_MINUTE = ("requests_per_minute", "tokens_per_minute")
MICRO = 1_000_000

DIALECTS = {"hosted/azure": "azure", "hosted/together": "together"}
"""By provider, what its server speaks; of all others OpenAI's wire is played."""

_SERVE = "from engine.cli.main import main; main()"


@dataclass(frozen=True, slots=True)
class Served:
    """A server that stands for an account.

    Attributes:
        account: The account's name.
        base_url: Where it listens.
    """

    account: str
    base_url: str

    def audit(self) -> Mapping[str, Any]:
        """Return what the server says that it did and billed: the truth that a provider would not tell."""
        root = self.base_url.rpartition("/v1")[0]
        with urllib.request.urlopen(f"{root}/__audit", timeout=START_SECONDS) as reply:  # noqa: S310 - our own server
            found: Mapping[str, Any] = json.load(reply)
        return found


def going_on(first: Path) -> Path:
    """Return the run directory of the newest rehearsal that has not ended as complete, or of a new one.

    Args:
        first: Where the first one goes; the others have a number behind that name, from 2.
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


def server_settings(
    account: Account, what: Mapping[Bought, Quote | None], folder: Path, speed: float, more: Mapping[str, object]
) -> dict[str, object]:
    """Return the settings of the server that stands for an account.

    Args:
        account: The account.
        what: What the plan buys there, and at what prices.
        folder: Where it keeps what it has.
        speed: How many times faster than real time passes.
        more: Further settings of the user's, which win.
    """
    quota = account.quota
    limits = {
        "rpm": _faster(quota.requests_per_minute, speed),
        "tpm": _faster(quota.tokens_per_minute, speed),
        "tpd": quota.tokens_per_day,
        "running_jobs": quota.concurrent_jobs,
        "daily_jobs": quota.jobs_per_day,
    }
    tuned = {bought.model for bought in what if bought.kind is not StageKind.JUDGE}
    plays = {
        bought.model: "standin-aligned"
        if bought.model in tuned
        else "standin-judge"  # which grades where it is asked to
        for bought in what
        if not bought.model.startswith(("standin-", "ft:"))
    }
    own: dict[str, object] = {
        "folder": str(folder),
        "time_scale": speed,
        "dialect": DIALECTS.get(account.provider, "openai"),
        **({"plays": plays} if plays else {}),
        "prices": _prices(what),
        "quota": {
            "limits": {"*": {name: limit for name, limit in limits.items() if limit is not None}},
            "day_seconds": DAY_SECONDS / speed,
            "charge": "settled" if quota.output_settles else "reserved",
        },
    }
    return _merged(own, more)


def _merged(own: Mapping[str, object], more: Mapping[str, object]) -> dict[str, object]:
    """Return settings with others over them, section by section."""
    found = dict(own)
    for name, value in more.items():
        mine = found.get(name)
        found[name] = _merged(mine, value) if isinstance(mine, Mapping) and isinstance(value, Mapping) else value
    return found


def _faster(limit: int | None, speed: float) -> int | None:
    return None if limit is None else max(1, round(limit * speed))


def _prices(what: Mapping[Bought, Quote | None]) -> dict[str, dict[str, int]]:
    """Prices in whole micro-dollars a million tokens, by model; `ft:` and the base model for tuned ones."""
    units = {"train": PriceUnit.TRAIN_MTOK, "input": PriceUnit.IN_MTOK, "output": PriceUnit.OUT_MTOK}
    found: dict[str, dict[str, int]] = {}
    for bought, quote in what.items():
        usd = {} if quote is None else {name: quote.usd(unit) for name, unit in units.items()}
        known = {name: int(price * MICRO) for name, price in usd.items() if price is not None}
        found.setdefault(bought.model.removesuffix(":"), {}).update(known)
    return found


def overrides(served: Served, account: Account, speed: float) -> list[str]:
    """Return the `--set` texts that point an account at its server, with its quota as much faster."""
    path = f"run.accounts.{served.account}"
    quota = {name: _faster(getattr(account.quota, name), speed) for name in PER_MINUTE}
    return [
        f"{path}.base_url={served.base_url}",
        f"{path}.key_env={KEY_ENV}",
        f"{path}.poll_seconds={max(0.1, account.poll_seconds / speed)}",
        *(f"{path}.quota.{name}={limit}" for name, limit in quota.items() if limit is not None),
    ]


@contextmanager
def serving(settings: Mapping[str, Mapping[str, object]]) -> Iterator[list[Served]]:
    """Start a server for each account, and stop them all at the end.

    Args:
        settings: Settings by account.

    Raises:
        RunError: One does not start.
    """
    processes: list[subprocess.Popen[bytes]] = []
    with tempfile.TemporaryDirectory(prefix="dosimeter-rehearsal-") as name:
        folder = Path(name)
        try:
            for account, own in settings.items():
                (folder / f"{account}.yaml").write_text(json.dumps(own), encoding="utf-8")  # JSON is YAML
                processes.append(_started(folder, account))
            os.environ[KEY_ENV] = KEY
            yield [
                Served(account, _url(folder, account, process))
                for account, process in zip(settings, processes, strict=True)
            ]
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                process.wait()


def _started(folder: Path, account: str) -> subprocess.Popen[bytes]:
    files = ["--settings", str(folder / f"{account}.yaml"), "--ready-file", str(folder / f"{account}.url")]
    with (folder / f"{account}.log").open("wb") as log:
        return subprocess.Popen(  # noqa: S603 - our own server
            [sys.executable, "-c", _SERVE, "serve-standin", "--port", "0", "--until-eof", *files],
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
            raise RunError(f"the rehearsal server did not start: {said.strip()[-1000:]}", where=account)
        time.sleep(0.05)
    return ready.read_text(encoding="utf-8").strip()
