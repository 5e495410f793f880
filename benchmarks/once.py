"""Whether a fine-tuning job is paid for once, whatever is lost: killed processes, lost replies, lists that lag.

    python benchmarks/once.py [--runs 40] [--seed 0] [--lag 2] [--patience 3.5] [--together 4]

Each run makes one job at a rehearsal server through `engine.run.accounts.jobs.Jobs`, in a process of its own (a fork, so that it
takes milliseconds). That process is killed, by signal 9, at a random moment around the making of the job; and now and then the
server breaks the connection before it has done anything, or once it has done it. Then the same again, until it succeeds. In the
first half of the runs the server's lists show every job at once, in the second half `--lag` seconds late.

The server's audit is the ground truth: `duplicate_jobs` are those of a key that had one already, `lost_jobs` those that ended
without success, and the ledger is what our processes say was trained, at the dated prices. The last line is JSON; all should
be 0, 0 and true. It takes about a minute a hundred runs. That it can tell shows `--patience 0`: a job that was made is then not
looked for as long as lists lag, and some are made twice.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import Any

import children

from engine import registry
from engine.domain.adapters import Kind
from engine.domain.cost import Usage
from engine.domain.price import charge
from engine.domain.sweep import Account
from engine.plan.prices import load_prices
from engine.plan.tariff import today
from engine.ports import NoSettings
from engine.ports.account import TuningRequest
from engine.ports.provider import Access, Job, JobOrder, Session
from engine.run.accounts.backoff import Patience
from engine.run.accounts.jobs import Jobs
from engine.run.accounts.journal import JobRecord, Journal
from engine.run.accounts.quota.broker import Broker

PROVIDER, MODEL = "hosted/openai", "standin-aligned"
ROWS = 10
KEY_ENV, KEY = "DOSIMETER_ONCE_KEY", "sk-test-once"
CREATE = "POST /v1/fine_tuning/jobs"
LISTS = "GET /v1/fine_tuning/jobs"
KILLED, DROPPED, NOT_RECEIVED = 0.6, 0.2, 0.1
"""How often a process is killed, a reply is lost, and a request is not received."""

TRIES = 30
"""Processes a run has at most; it takes about three."""

REQUEST_SECONDS = 0.03
"""About how long the request takes; a kill during it comes at a random moment of twice as long."""

SERVER = ("--port", "0", "--set", "time_scale=100000")


class Moment(StrEnum):
    """When a process is killed."""

    BEFORE_INTENT = "before the intent"
    AFTER_INTENT = "after the intent"
    DURING_REQUEST = "during the request"
    AFTER_REPLY = "after the reply"
    BEFORE_ID = "before the id is written"
    AFTER_ID = "after the id"


def die() -> None:
    """End this process as a kill does: nothing is flushed, nothing is closed."""
    os.kill(os.getpid(), signal.SIGKILL)


class Deadly:
    """A session that kills its process around the request that makes a job. All else is the session's own."""

    def __init__(self, session: Session, moment: Moment | None, draw: random.Random) -> None:
        """Wrap a session."""
        self._session, self._moment, self._draw = session, moment, draw

    def __getattr__(self, name: str) -> object:
        return getattr(self._session, name)

    async def create_job(self, order: JobOrder) -> Job:
        """Make a job, or die on the way."""
        if self._moment is Moment.DURING_REQUEST:
            asyncio.get_running_loop().call_later(self._draw.uniform(0, 2 * REQUEST_SECONDS), die)
        made = await self._session.create_job(order)
        if self._moment is Moment.AFTER_REPLY:
            die()
        return made


class DeadlyJournal(Journal):
    """A journal that kills its process around a write."""

    def __init__(self, folder: Path, moment: Moment | None) -> None:
        """Open a journal."""
        super().__init__(folder)
        self._moment = moment

    def write(self, record: JobRecord) -> None:
        """Keep a record, or die on the way."""
        before, after = (
            (Moment.BEFORE_ID, Moment.AFTER_ID) if record.job_id else (Moment.BEFORE_INTENT, Moment.AFTER_INTENT)
        )
        if self._moment is before:
            die()
        super().write(record)
        if self._moment is after:
            die()


@dataclass(slots=True)
class Run:
    """One job that is to be made once.

    Attributes:
        number: Which of them; it is the training's seed too.
        folder: What its processes know of each other.
        tries: Processes it has had.
    """

    number: int
    folder: Path
    tries: int = 0

    @property
    def outcome(self) -> Path:
        """Where a process that succeeds says how many tokens were trained."""
        return self.folder / "trained"

    def fork(self, url: str, patience: float, moment: Moment | None) -> int:
        """Try it in a process of its own, and return that process's id."""
        self.tries += 1
        draw = random.Random(f"{self.number} {self.tries}")  # noqa: S311 - no secret
        if child := os.fork():
            return child
        code = 1
        try:
            asyncio.run(self._made(url, Patience(patience, 0.1), moment, draw))
            code = 0
        finally:
            os._exit(code)

    async def _made(self, url: str, patience: Patience, moment: Moment | None, draw: random.Random) -> None:
        provider = registry.adapter(Kind.PROVIDER, PROVIDER)
        session = Deadly(provider.connect(Access("once", url, KEY_ENV, 10.0)), moment, draw)
        account = Account(provider=PROVIDER, base_url=url, key_env=KEY_ENV, poll_seconds=0.1)
        journal = DeadlyJournal(self.folder / "jobs", moment)
        jobs = Jobs("once", account, provider, session, journal, patience, broker=Broker(session, account.quota))
        rows = registry.adapter(Kind.DATA, "standin/explicit").rows(NoSettings())[:ROWS]
        made = await jobs.run(TuningRequest(f"tune-{self.number:04}", MODEL, rows, 1, ROWS, 1.0, self.number))
        self.outcome.write_text(str(made.job.trained_tokens))


@dataclass(slots=True)
class Tally:
    """What has happened.

    Attributes:
        kills: Processes killed, by moment.
        errors: Processes that ended in an error.
        lost: Runs that never succeeded.
    """

    kills: Counter[Moment] = field(default_factory=Counter)
    errors: int = 0
    lost: list[int] = field(default_factory=list)


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """Start the server, and yield its base URL."""
    ready = folder / "ready"
    line = [sys.executable, "-c", "from engine.cli.main import main; main()", "serve-standin", *SERVER]
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen([*line, "--ready-file", str(ready)], stdout=log, stderr=log) as server,
    ):
        try:
            while not ready.exists():
                if server.poll() is not None:
                    raise SystemExit((folder / "log").read_text())
                time.sleep(0.05)
            yield ready.read_text().strip()
        finally:
            server.send_signal(signal.SIGINT)


def told(url: str, path: str, body: object = None) -> Any:
    """Ask the server's own endpoints."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url.removesuffix("/v1") + path, data)  # noqa: S310 - our own server
    with urllib.request.urlopen(request, timeout=60) as reply:  # noqa: S310 - the same
        return json.load(reply)


def spoil(url: str, lag: float) -> None:
    """Replace the server's faults."""
    faults: list[dict[str, object]] = [
        {"kind": "lost_reply", "on": CREATE, "probability": DROPPED},
        {"kind": "reset", "on": CREATE, "probability": NOT_RECEIVED},
    ]
    if lag:
        faults.append({"kind": "list_lag", "on": LISTS, "seconds": lag})
    told(url, "/__faults", {"faults": faults})


def broken(url: str) -> int:
    """Return how many connections the server's faults have broken."""
    return sum(fault["befell"] for fault in told(url, "/__faults")["faults"] if fault["kind"] != "list_lag")


def warm_up(url: str) -> None:
    """Import what every process needs: forks have it then."""
    asyncio.run(registry.adapter(Kind.PROVIDER, PROVIDER).connect(Access("once", url, KEY_ENV)).close())


def carry_out(runs: Sequence[Run], url: str, wanted: argparse.Namespace, draw: random.Random, tally: Tally) -> None:
    """Try every run until it succeeds, some at a time."""
    waiting, busy = list(reversed(runs)), dict[int, tuple[Run, Moment | None]]()
    while waiting or busy:
        while waiting and len(busy) < wanted.together:
            run = waiting.pop()
            moment = draw.choice(list(Moment)) if draw.random() < KILLED else None
            busy[run.fork(url, wanted.patience, moment)] = run, moment
        child, status = os.wait()
        run, moment = busy.pop(child)
        if os.WIFSIGNALED(status) and moment is not None:
            tally.kills[moment] += 1
        elif not run.outcome.exists():
            tally.errors += 1
        if run.outcome.exists():
            continue
        if run.tries < TRIES:
            waiting.append(run)
        else:
            tally.lost.append(run.number)


def summary(url: str, runs: Sequence[Run], drops: int, tally: Tally) -> dict[str, object]:
    """Compare what our processes say with what the server did."""
    audit = told(url, "/__audit")
    keys = [job["metadata"]["dosimeter"] for job in audit["jobs"]]
    trained = sum(int(run.outcome.read_text()) for run in runs if run.outcome.exists())
    ledger = charge(Usage(train_tokens=trained), load_prices().quote(PROVIDER, MODEL, today()))
    bill = Decimal(audit["pico_dollars"]).scaleb(-12)
    return {
        "duplicate_jobs": len(keys) - len(set(keys)),
        "lost_jobs": len(tally.lost) + len({f"tune-{run.number:04}" for run in runs} - set(keys)),
        "ledger_equals_bill": ledger == bill,
        "usd": f"{bill.normalize():f}",
        "runs": len(runs),
        "processes": sum(run.tries for run in runs),
        "kills": sum(tally.kills.values()),
        "drops": drops,
        "errors": tally.errors,
    }


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--lag", type=float, default=2.0, help="Seconds that lists lag in the second half.")
    parser.add_argument("--patience", type=float, default=3.5, help="Seconds for which a job is looked for.")
    parser.add_argument("--together", type=int, default=4, help="Processes at a time.")
    wanted = parser.parse_args()
    os.environ[KEY_ENV] = KEY
    begun, tally, drops = time.monotonic(), Tally(), 0
    draw = random.Random(wanted.seed)  # noqa: S311 - no secret
    with children.workplace() as folder, serving(folder) as url:
        warm_up(url)
        runs = [Run(number, folder / f"{number}") for number in range(wanted.runs)]
        for run in runs:
            run.folder.mkdir()
        half = wanted.runs // 2
        for part, lag in ((runs[:half], 0.0), (runs[half:], wanted.lag)):
            spoil(url, lag)
            before = tally.kills.total()
            carry_out(part, url, wanted, draw, tally)
            drops += broken(url)
            kills, seconds = tally.kills.total() - before, time.monotonic() - begun
            print(f"lists {lag:g} s late: {len(part)} jobs, {kills} kills, after {seconds:.0f} s", flush=True)
        for moment in Moment:
            print(f"killed {moment.value:28} {tally.kills[moment]:4}")
        print(json.dumps(summary(url, runs, drops, tally)))


if __name__ == "__main__":
    main()
