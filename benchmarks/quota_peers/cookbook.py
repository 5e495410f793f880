"""The algorithm of openai-cookbook's api_request_parallel_processor.py (MIT, as of 2026), retyped on the same client.

    python benchmarks/quota_peers/cookbook.py URL CALLS --rpm 600 --tpm 60000

Two buckets that hold a whole minute, refilled by a loop that turns each millisecond; what failed goes first; five attempts; a
pause of 15 seconds after a rate limit error, which it knows by a code that the server does not send. Instead of tiktoken,
which needs the network, a prompt's tokens are its characters / 4, so that its estimate of the charge is never too small.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections import deque
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from openai import APIStatusError, AsyncOpenAI, OpenAIError

from quota_peers.server import KEY
from quota_peers.work import Call, calls

ATTEMPTS = 5
PAUSE_S = 15.0
LOOP_S = 0.001


class Processor:
    """The loop, and what it counts."""

    def __init__(self, client: AsyncOpenAI, rpm: float, tpm: float) -> None:
        """Start with a full minute of both."""
        self._client = client
        self._rpm, self._tpm = rpm, tpm
        self._requests, self._tokens = rpm, tpm
        self._again: deque[tuple[Call, int]] = deque()
        self._limited_at = 0.0
        self._running: set[asyncio.Task[None]] = set()
        self.answered = self.failed = 0

    async def process(self, work: deque[Call]) -> None:
        """Make all calls."""
        last, following = time.monotonic(), None
        while True:
            if following is None and self._again:
                following = self._again.popleft()
            elif following is None and work:
                following = (work.popleft(), ATTEMPTS)
            now = time.monotonic()
            self._requests = min(self._requests + self._rpm * (now - last) / 60, self._rpm)
            self._tokens = min(self._tokens + self._tpm * (now - last) / 60, self._tpm)
            last = now
            if following is not None:
                call, attempts = following
                tokens = call.request.characters // 4 + call.request.max_tokens
                if self._requests >= 1 and self._tokens >= tokens:
                    self._requests -= 1
                    self._tokens -= tokens
                    task = asyncio.create_task(self._send(call, attempts - 1))
                    self._running.add(task)
                    task.add_done_callback(self._running.discard)
                    following = None
            if following is None and not self._running and not self._again and not work:
                return
            await asyncio.sleep(LOOP_S)
            since = time.monotonic() - self._limited_at
            if since < PAUSE_S:
                await asyncio.sleep(PAUSE_S - since)

    async def _send(self, call: Call, attempts: int) -> None:
        messages = [{"role": turn.role, "content": turn.text} for turn in call.request.turns]
        try:
            await self._client.chat.completions.create(
                model=call.request.model, messages=messages, max_tokens=call.request.max_tokens, temperature=0
            )
            self.answered += 1
        except OpenAIError as error:
            if isinstance(error, APIStatusError) and error.code == "429":
                self._limited_at = time.monotonic()
            if attempts:
                self._again.append((call, attempts))
            else:
                self.failed += 1


async def run(url: str, number: int, rpm: float, tpm: float) -> dict[str, float]:
    """Make all calls, and return what came of them, and what it cost."""
    began = time.process_time()
    async with AsyncOpenAI(api_key=KEY, base_url=url, max_retries=0) as client:
        processor = Processor(client, rpm, tpm)
        await processor.process(deque(calls(number)))
    cpu = time.process_time() - began
    return {"answered": processor.answered, "lost": processor.failed, "cpu_ms_per_call": 1000 * cpu / number}


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("calls", type=int)
    parser.add_argument("--rpm", type=float, required=True)
    parser.add_argument("--tpm", type=float, required=True)
    wanted = parser.parse_args()
    print(json.dumps(asyncio.run(run(wanted.url, wanted.calls, wanted.rpm, wanted.tpm))))


if __name__ == "__main__":
    main()
