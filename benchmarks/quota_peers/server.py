"""The rehearsal server as a process of its own, and what its audit says: the ground truth."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

KEY = "sk-test-benchmark"
START_S = 60.0
STEADY = (0.1, 0.95)
"""The steady state: this part of the time between the first and the last request that was let through."""

OK, THROTTLED = 200, 429


@dataclass(frozen=True, slots=True)
class Limits:
    """What the server allows: a minute's requests and tokens, and how it holds them; None where it does not."""

    policy: str
    rpm: int | None
    tpm: int | None
    quantum: float = 5.0

    def overrides(self) -> list[str]:
        """Return the settings as the command line takes them."""
        sets = [f"quota.policy={self.policy}", f"quota.quantum_seconds={self.quantum}"]
        limits = {"rpm": self.rpm, "tpm": self.tpm}
        sets += [f"quota.limits.standin-echo.{name}={value}" for name, value in limits.items() if value is not None]
        return [part for setting in sets for part in ("--set", setting)]


@dataclass(frozen=True, slots=True)
class Seen:
    """What the server saw.

    Attributes:
        ok: Requests that it answered.
        throttled: 429s.
        utilisation: In the steady state, what it let through / what it allows, of the limit that binds; NaN without one.
        seconds: From the first request to the last that was let through.
        bound_seconds: The least that this could take.
    """

    ok: int
    throttled: int
    utilisation: float
    seconds: float
    bound_seconds: float

    @property
    def rate_429(self) -> float:
        """429s of all requests."""
        return self.throttled / max(1, self.ok + self.throttled)


@contextmanager
def serving(limits: Limits, *settings: str) -> Iterator[str]:
    """Start a server, and yield its base URL."""
    with tempfile.TemporaryDirectory() as folder:
        ready = Path(folder) / "ready"
        line = [sys.executable, "-c", "from engine.cli.main import main; main()", "serve-standin", "--port", "0"]
        line += ["--ready-file", str(ready), *limits.overrides(), *settings]
        with subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
            try:
                deadline = time.monotonic() + START_S
                while not ready.exists():
                    if server.poll() is not None or time.monotonic() > deadline:
                        raise SystemExit("the rehearsal server did not start")
                    time.sleep(0.05)
                yield ready.read_text(encoding="utf-8").strip()
            finally:
                server.send_signal(signal.SIGTERM)
                server.wait()


def seen(url: str, limits: Limits) -> Seen:
    """Read what the server saw."""
    request = urllib.request.Request(  # noqa: S310 - a local mock server
        url.removesuffix("/v1") + "/__audit?log=1", headers={"Authorization": f"Bearer {KEY}"}
    )
    with urllib.request.urlopen(request) as reply:  # noqa: S310
        audit = json.load(reply)
    rows = [dict(zip(audit["columns"], row, strict=True)) for row in audit["log"]]
    chats = [row for row in rows if "chat/completions" in row["call"]]
    done = sorted((row["at"], row["charged"]) for row in chats if row["status"] == OK)
    throttled = sum(row["status"] == THROTTLED for row in chats)
    if not done:
        return Seen(0, throttled, float("nan"), 0.0, 0.0)
    begun, span = done[0][0], done[-1][0] - done[0][0]
    low, high = (begun + span * part for part in STEADY)
    steady = [charged for at, charged in done if low < at <= high]
    tokens = sum(charged for _, charged in done)
    shares, bounds = [float("nan")], [0.0]
    for limit, amount, whole in ((limits.rpm, len(steady), len(done)), (limits.tpm, sum(steady), tokens)):
        if limit is not None:
            shares.append(amount / (limit / 60 * (high - low)))
            bounds.append((whole - limit * burst_share(limits)) / (limit / 60))
    return Seen(len(done), throttled, max(shares[1:], default=shares[0]), span, max(bounds))


def burst_share(limits: Limits) -> float:
    """Return how much of a minute's limit may be sent at once after a rest: a bucket holds 10 seconds."""
    return {"bucket": 10 / 60, "sliding": 1.0, "quantised": limits.quantum / 60}[limits.policy]
