"""A rehearsal server on a real socket, and the unmodified client of the vendor."""

from __future__ import annotations

import json
import math
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest
from openai import OpenAI

from adapters.hosted.rehearsal.backend.process import ModelProcess
from adapters.hosted.rehearsal.server import serving
from adapters.hosted.rehearsal.settings import ServerSettings
from adapters.hosted.rehearsal.standin import backend
from adapters.hosted.rehearsal.state.account import StartProcess
from engine.cli.serve_verb import tools
from engine.domain.cost import Usage
from engine.domain.results import Finish, Response, TrainingStep
from engine.ports import GenerateTask, TrainingRun, Tuned


@dataclass(frozen=True)
class Served:
    url: str
    closing: ExitStack

    def client(self, key: str = "sk-test-rehearsal", **options: Any) -> OpenAI:
        made = OpenAI(base_url=self.url, api_key=key, **({"max_retries": 0} | options))
        return self.closing.enter_context(made)

    def own(self, path: str, body: object = None) -> dict:
        """One of the server's own endpoints."""
        root = self.url.split("/v1")[0].removesuffix("/openai")
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(root + path, data) as reply:  # noqa: S310 - loopback
            return json.load(reply)

    @property
    def audit(self) -> dict:
        return self.own("/__audit?log=1")

    def over(self, fetch: Callable[[str], Any], thing_id: str, seconds: float = 120) -> Any:
        """Poll a job or a batch until it is over."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            thing = fetch(thing_id)
            if thing.status in {"succeeded", "failed", "cancelled", "completed"}:
                return thing
            time.sleep(0.02)
        raise TimeoutError(thing)


class Instant(ModelProcess):
    """Answers and trains at once, and nothing: for tests of what is around a model."""

    async def ask(self, task: GenerateTask) -> list[Response]:
        return [Response("0", sample, "a word", Finish.STOP, 5, 2) for sample in range(task.decoding.samples)]

    async def train(self, run: TrainingRun) -> Tuned:
        each = math.ceil(len(run.rows) / run.settings.batch_size)
        last = run.checkpoints[0].length.in_steps(each)
        return Tuned([TrainingStep(step, step / each, 1.0, 1e-3) for step in range(1, last + 1)], Usage())


@pytest.fixture
def serve() -> Iterator[Callable[..., Served]]:
    """Start servers with settings; they end with the test."""
    with ExitStack() as stack:

        def start(process: StartProcess = ModelProcess, **settings: object) -> Served:
            quick = {"time_scale": 10_000.0} | settings
            wanted = ServerSettings.model_validate(quick)
            return Served(stack.enter_context(serving(wanted, backend(tools()), process=process)), stack)

        yield start
