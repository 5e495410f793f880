"""The provider of the guide works as it stands there, and is as short as the guide says."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from engine.domain.conversation import Turn
from engine.ports.chat import ChatRequest, Choice, FinishReason
from engine.ports.provider import Access, JobOrder, JobState, Step
from engine.ports.provider_errors import ThrottledError

PAGE = Path(__file__).parents[4] / "docs" / "guides" / "providers.md"
ORDER = JobOrder("tune-1", "small", "file-1", 3, None, None, 0, "s")

Serve = Callable[..., AbstractAsyncContextManager]  # of conftest's Canned


def ok(body: object, status: str = "200 OK") -> bytes:
    text = json.dumps(body)
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(text)}\r\nConnection: close\r\n\r\n{text}".encode()


def test_the_provider_of_the_guide(canned: Serve) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(code.splitlines()) < 200
    made: dict[str, Any] = {"__name__": "acme"}
    exec(compile(code, str(PAGE), "exec", dont_inherit=True), made)  # noqa: S102 - our own page
    tuning = {
        "name": "tune-1",
        "state": "done",
        "base": "small",
        "model": "small-1",
        "began": 5.0,
        "losses": [2.0, 1.0],
    }
    refusal = ok({"error": {"message": "Please try again in 2s."}}, "429 Too Many Requests")
    replies = (
        ok(tuning),
        ok({"tunings": [tuning, {**tuning, "name": "tune-2", "state": "unsafe", "why": "no"}]}),
        ok(tuning),
        ok({"text": "heron", "read": 4, "made": 2}),
        refusal,
    )

    async def go() -> None:
        async with canned(*replies) as server:
            session = made["AcmeProvider"]().connect(Access("acme", server.url, "MARKER_KEY"))
            job = await session.create_job(ORDER)
            assert (job.job_id, job.key, job.state, job.tuned_model) == (
                "tune-1",
                "tune-1",
                JobState.SUCCEEDED,
                "small-1",
            )
            assert [one.state for one in await session.jobs(0)] == [JobState.SUCCEEDED, JobState.BLOCKED]
            assert await session.losses("tune-1") == [Step(1, 2.0), Step(2, 1.0)]
            completion = await session.complete(ChatRequest("small-1", (Turn("user", "name a bird"),), 8))
            assert (completion.choices, completion.prompt_tokens, completion.generated_tokens) == (
                (Choice("heron", FinishReason.STOP),),
                4,
                2,
            )
            with pytest.raises(ThrottledError) as caught:
                await session.complete(ChatRequest("small-1", (Turn("user", "name a bird"),), 8))
            assert caught.value.seconds == 2
            await session.close()
            assert server.asked[0].startswith(b"PUT /v1/tunings/tune-1 ")

    asyncio.run(go())
