"""What most people write: `AsyncOpenAI` with 64 tasks, and its own retries.

python benchmarks/quota_peers/sdk.py URL CALLS [--retries 10]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from openai import AsyncOpenAI, OpenAIError

from quota_peers.server import KEY
from quota_peers.work import Call, calls

TASKS = 64


async def worker(client: AsyncOpenAI, work: Iterator[Call], errors: list[str]) -> None:
    """Make one call after another."""
    for call in work:
        messages = [{"role": turn.role, "content": turn.text} for turn in call.request.turns]
        try:
            await client.chat.completions.create(
                model=call.request.model, messages=messages, max_tokens=call.request.max_tokens, temperature=0
            )
        except OpenAIError as error:
            errors.append(type(error).__name__)


async def run(url: str, number: int, retries: int) -> dict[str, float]:
    """Make all calls, and return what came of them, and what it cost."""
    work, errors = iter(calls(number)), list[str]()
    began = time.process_time()
    async with AsyncOpenAI(api_key=KEY, base_url=url, max_retries=retries) as client:
        await asyncio.gather(*(worker(client, work, errors) for _ in range(TASKS)))
    cpu = time.process_time() - began
    return {"answered": number - len(errors), "lost": len(errors), "cpu_ms_per_call": 1000 * cpu / number}


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("calls", type=int)
    parser.add_argument("--retries", type=int, default=2)
    wanted = parser.parse_args()
    print(json.dumps(asyncio.run(run(wanted.url, wanted.calls, wanted.retries))))


if __name__ == "__main__":
    main()
