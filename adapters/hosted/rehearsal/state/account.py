"""The state of the mock server: all that the server knows. Endpoints get it, and it imports none of them."""

from __future__ import annotations

import asyncio
import logging
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from pathlib import Path
from typing import Any, TypeAlias

from filelock import FileLock

from adapters.hosted.rehearsal.api import ApiError, id_maker
from adapters.hosted.rehearsal.backend.parts import Backend
from adapters.hosted.rehearsal.backend.process import ModelProcess
from adapters.hosted.rehearsal.limits.quotas import Quotas
from adapters.hosted.rehearsal.settings import FaultKind, ServerSettings
from adapters.hosted.rehearsal.state.audit import Audit
from adapters.hosted.rehearsal.state.faults import Faults
from adapters.hosted.rehearsal.state.records import Deployment, MockBatch, MockJob, StoredFile

_log = logging.getLogger(__name__)


StartProcess: TypeAlias = Callable[[Backend], ModelProcess]
"""What training and answering happen in."""


class MockAccount:
    """What one server holds.

    Args:
        settings: How it is to behave.
        backend: What trains, answers and grades.
        process: Makes what it happens in.

    Attributes:
        life: How many servers its folder has had before; 0 without one.
        lock: Keeps other servers out of its folder; None without one.
        weights: Where jobs leave what they trained.
    """

    def __init__(self, settings: ServerSettings, backend: Backend, process: StartProcess = ModelProcess) -> None:
        """Start with nothing in it; `memory` fills it with what it had before."""
        self.settings = settings
        self.backend = backend
        self.life = 0
        self.lock: FileLock | None = None
        self.new_id = id_maker(settings.seed)
        self.draw = random.Random(settings.seed)  # noqa: S311 - no secret
        self.audit = Audit(settings.prices, settings.batch_percent)
        self.quotas = Quotas(settings.quota)
        self.faults = Faults(settings.faults, settings.seed)
        self.files: dict[str, StoredFile] = {}
        self.jobs: dict[str, MockJob] = {}
        self.tuned: dict[str, str] = {}
        self.batches: dict[str, MockBatch] = {}
        self.deployments: dict[str, Deployment] = {}
        self.weights = settings.folder / "weights" if settings.folder else Path(tempfile.mkdtemp(prefix="rehearsal-"))
        self.trainer = process(backend)
        self.answerer = process(backend)
        self._slots: dict[str, asyncio.Semaphore] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def is_azure(self) -> bool:
        """Whether it implements Azure's API."""
        return self.settings.dialect == "azure"

    @property
    def is_together(self) -> bool:
        """Whether it implements Together's API."""
        return self.settings.dialect == "together"

    def start(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """Start something that goes on beside the requests."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("a bug of the local mock server", exc_info=error)

    def slot(self, model: str) -> AbstractAsyncContextManager[object]:
        """Return what a job holds while it runs; where they are limited, jobs wait for one in turn."""
        limit = self.settings.quota.of(model).running_jobs
        if limit is None:
            return nullcontext()
        return self._slots.setdefault(model, asyncio.Semaphore(limit))

    async def pause(self, between: tuple[float, float]) -> None:
        """Wait as long as something takes: drawn between two numbers of seconds, divided by the time scale."""
        await asyncio.sleep(self.draw.uniform(*between) / self.settings.time_scale)

    def listed_until(self, call: str) -> float:
        """Return until when what was created is listed, in seconds since the epoch: lists may lag."""
        lag = self.faults.strikes(FaultKind.LIST_LAG, call)
        return time.time() - (lag.seconds if lag else 0.0)

    def tell(self, job: MockJob, message: str, level: str = "info", data: Mapping[str, Any] | None = None) -> None:
        """Add an event to a job; one with data is of type `metrics`."""
        job.events.append(
            {
                "object": "fine_tuning.job.event",
                "id": self.new_id("ftevent-"),
                "created_at": int(time.time()),
                "level": level,
                "message": message,
                "type": "metrics" if data else "message",
                "data": dict(data or {}),
            }
        )

    def check_money(self) -> None:
        """Refuse when the account has spent all that it may.

        Raises:
            ApiError: 429, for good.
        """
        limit = self.settings.spend_limit
        if limit is not None and self.audit.pico_dollars >= limit * 10**6:
            raise no_quota()

    async def close(self) -> None:
        """Stop all that goes on, and remove what was written, where nothing is to be kept."""
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(self.trainer.close(), self.answerer.close())
        if self.settings.folder is None:
            shutil.rmtree(self.weights, ignore_errors=True)


def no_quota() -> ApiError:
    """Return the 429 of an account without money."""
    message = "You exceeded your current quota, please check your plan and billing details."
    return ApiError(429, message, "insufficient_quota", code="insufficient_quota")
