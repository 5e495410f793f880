"""How much of a provider's quota is used, how often it is overstepped, and what is lost: Dosimeter's broker and its peers.

    python benchmarks/quota.py [--quick] [--calls 1000] [--rpm 600] [--tpm 60000] [--hosts 1 8] [--quantum 5] [--alone]

Each way makes the same calls (generations and judgements of skewed lengths) against a rehearsal server of its own, which
holds the limits as a bucket (of 10 seconds), as a sliding window of a minute, or in quanta of seconds. The server's audit is the
ground truth. Dosimeter is told no limit: it learns them from the replies. With N hosts, N processes hand their calls to the
process that owns the quota. Ways that run at the same time share the machine, but no server.

`used` is what the server let through in the steady state / what it allows then; `bound` is the time that all calls take / the
least that they could. At last 20,000 calls without limits: the owner's CPU a call, all of it, and of the broker alone (the same
calls, answered at once by nobody). The last line is JSON. It takes about 6 minutes on two cores, and under one with `--quick`.

A further peer is a script in `quota_peers` that takes the URL and the number of calls and prints `answered` and `lost` as JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import children
from quota_peers.server import Limits, Seen, seen, serving
from quota_peers.work import calls

from engine.domain.quota import Quota
from engine.ports.chat import ChatRequest, Choice, Completion, FinishReason, RateLimit, RateLimits
from engine.run.accounts.quota.broker import Broker

PEERS = Path(__file__).with_name("quota_peers")
POLICIES = ("bucket", "sliding", "quantised")
PLENTY = RateLimits(RateLimit(10**8, 10**8, 0.0), RateLimit(10**12, 10**12, 0.0))


@dataclass(frozen=True, slots=True)
class Way:
    """A way to make the calls: its name, its script and arguments, and the limits that it meets."""

    name: str
    line: tuple[str, ...]
    limits: Limits


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it: as the server saw it, and as the client did."""

    way: Way
    seen: Seen
    lost: int
    cpu_ms_per_call: float

    @property
    def row(self) -> str:
        """One line for a person."""
        bound = self.seen.seconds / self.seen.bound_seconds if self.seen.bound_seconds else math.nan
        return (
            f"{self.way.name:34} {self.way.limits.policy:10} {self.seen.utilisation:6.3f} {self.seen.throttled:5d}"
            f" {100 * self.seen.rate_429:6.2f} % {self.lost:5d} {self.seen.seconds:7.1f} {bound:6.2f}"
            f" {self.cpu_ms_per_call:7.2f}"
        )


HEADER = f"{'way':34} {'policy':10} {'used':>6} {'429s':>5} {'of all':>8} {'lost':>5} {'seconds':>7} {'bound':>6} {'cpu ms':>7}"


class Nobody:
    """Answers at once: what is left is the broker's own work."""

    async def complete(self, _request: ChatRequest) -> Completion:
        """Answer."""
        await asyncio.sleep(0)
        return Completion((Choice("", FinishReason.STOP),), 1, 0, 1, PLENTY)


def measured(way: Way, number: int) -> Outcome:
    """Run one way against a server of its own."""
    with serving(way.limits) as url:
        script, *rest = way.line
        line = [sys.executable, str(PEERS / script), url, str(number), *rest]
        done = subprocess.run(line, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{way.name} failed: {done.stderr[-2000:]}")
        told = json.loads(done.stdout.splitlines()[-1])
        return Outcome(way, seen(url, way.limits), told["lost"], told["cpu_ms_per_call"])


def rounds(wanted: argparse.Namespace) -> list[list[Way]]:
    """Return what is run, what runs together in one list; the peers run with the first hosts."""
    limits = [Limits(policy, wanted.rpm, wanted.tpm, wanted.quantum) for policy in POLICIES]
    made = []
    for hosts in wanted.hosts:
        line = ("dosimeter.py", "--hosts", str(hosts))
        made.append([Way(f"dosimeter, hosts: {hosts}", line, each) for each in limits])
    if not wanted.alone:
        numbers = ("--rpm", str(wanted.rpm), "--tpm", str(wanted.tpm))
        made[0] += [Way("AsyncOpenAI, 64 tasks, 2 retries", ("sdk.py", "--retries", "2"), limits[0])]
        made[0] += [Way("openai-cookbook, told the limits", ("cookbook.py", *numbers), each) for each in limits[:2]]
        made[-1] += [Way("AsyncOpenAI, 64 tasks, 10 retries", ("sdk.py", "--retries", "10"), limits[0])]
    return made


async def alone(number: int) -> float:
    """Return the CPU milliseconds a call that the broker takes by itself."""
    work = calls(number)
    broker = Broker(Nobody(), Quota())
    began = time.process_time()
    await asyncio.gather(*(broker.complete(call.request, flow=call.flow, urgent=call.urgent) for call in work))
    return 1000 * (time.process_time() - began) / number


def main() -> None:
    """Run all of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--calls", type=int, default=1000)
    parser.add_argument("--rpm", type=int, default=600)
    parser.add_argument("--tpm", type=int, default=60_000)
    parser.add_argument("--quantum", type=float, default=5.0)
    parser.add_argument("--hosts", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--unlimited", type=int, default=20_000)
    parser.add_argument("--alone", action="store_true", help="without the peers")
    wanted = parser.parse_args()
    if wanted.quick:
        wanted.calls, wanted.hosts, wanted.unlimited, wanted.alone = 200, [2], 2000, True
    with children.contained():
        measure(wanted)


def measure(wanted: argparse.Namespace) -> None:
    """Run every way, and print what came of it."""
    print(HEADER)
    outcomes: list[Outcome] = []
    for together in rounds(wanted):
        with ThreadPoolExecutor(len(together)) as pool:
            for outcome in pool.map(lambda way: measured(way, wanted.calls), together):
                print(outcome.row, flush=True)
                outcomes.append(outcome)
    free = measured(
        Way("dosimeter, no limits", ("dosimeter.py", "--in-flight", "16"), Limits("bucket", None, None)),
        wanted.unlimited,
    )
    print(free.row)
    own = asyncio.run(alone(wanted.unlimited))
    print(f"the broker alone: {own:.3f} ms of CPU a call")
    print(json.dumps(summary([each for each in outcomes if each.way.name.startswith("dosimeter")], free, own)))


def summary(ours: Sequence[Outcome], free: Outcome, own: float) -> dict[str, float]:
    """Return the numbers that are kept."""
    bucket = [each for each in ours if each.way.limits.policy == POLICIES[0]]
    return {
        "utilisation": min(each.seen.utilisation for each in bucket),
        "rate_429": max(each.seen.rate_429 for each in bucket),
        "lost": sum(each.lost for each in [*ours, free]),
        "worst_utilisation": min(each.seen.utilisation for each in ours),
        "worst_rate_429": max(each.seen.rate_429 for each in ours),
        "cpu_ms_per_call": own,
        "cpu_ms_per_call_with_client": free.cpu_ms_per_call,
    }


if __name__ == "__main__":
    main()
