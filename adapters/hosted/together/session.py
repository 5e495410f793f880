"""An account at Together AI: where its API differs from OpenAI's.

Source: the `together` SDK (3.1.1) and Together's reference, as of 2026-11.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from types import MappingProxyType

from pydantic import RootModel

from adapters.hosted.http.client import Client, HttpReply
from adapters.hosted.http.errors import batch_problem
from adapters.hosted.http.reply import Reply
from adapters.hosted.openai import bodies
from adapters.hosted.openai.bodies import Limit
from adapters.hosted.openai.replies import Filed, Page, batch_answers, steps
from adapters.hosted.openai.session import OpenAISession
from adapters.hosted.together import fine_tunes
from adapters.hosted.together.fine_tunes import FineTune, Metrics, epoch
from engine.ports.chat import ChatRequest
from engine.ports.provider import BatchState, Job, JobOrder, Step
from engine.ports.provider_errors import RejectedError

BATCH_OVER = frozenset({"COMPLETED", "FAILED", "EXPIRED", "CANCELLED"})
BATCHED = "batch-api"
OURS = "dosimeter-"
"""How the file of a batch is called: batches have no metadata either, and the file's name holds the key."""


class File(Filed):
    """A file, which is looked through after its upload."""

    processing_status: str | None = None


class TogetherBatch(Reply):
    """A batch."""

    id: str
    status: str = ""
    created_at: datetime | None = None
    input_file_id: str | None = None
    output_file_id: str | None = None
    error_file_id: str | None = None
    error: str | None = None


class Created(Reply):
    """The reply to a batch that is handed in."""

    job: TogetherBatch


class Batches(RootModel[list[TogetherBatch] | None]):
    """All batches: a bare list, or none."""


class TogetherSession(OpenAISession):
    """One account at Together AI.

    A job that is looked at alone may not say its suffix: who does not know its key then looks into the list, once a job.
    """

    jobs_path = "/fine-tunes"

    def __init__(self, client: Client, limit: Limit) -> None:
        """Speak with a client."""
        super().__init__(client, limit)
        self._keys: dict[str, str] = {}

    async def jobs(self, since: float) -> Sequence[Job]:
        """Return the jobs created since then, seconds since the epoch."""
        return [await self._shown(job) for job in await self._listed() if job.created_at >= math.floor(since)]

    async def losses(self, job_id: str) -> Sequence[Step]:
        """Return a finished job's training losses."""
        measured = self._client.read(Metrics, await self._client.get(f"{self.jobs_path}/{job_id}/metrics"))
        pairs = ((row.get("train/global_step"), row.get("train/loss")) for row in measured.metrics or ())
        return steps(pairs)

    async def flagged(self, texts: Sequence[str]) -> Sequence[bool]:
        """Refuse: there is no moderation endpoint."""
        if not texts:
            return ()
        raise RejectedError("Together has no moderation endpoint")

    async def upload_batch(self, key: str, requests: Mapping[str, ChatRequest]) -> str:
        """Upload requests by custom id, and return the file's id."""
        lines = ({"custom_id": name, "body": bodies.chat(request, Limit.OLD)} for name, request in requests.items())
        return await self._upload(BATCHED, f"{OURS}{key}.jsonl", bodies.lines(lines))

    async def submit_batch(self, key: str, file_id: str) -> str:
        """Hand in a batch; returns its id. Its key is the name of its file."""
        del key
        body = {"endpoint": bodies.CHAT, "input_file_id": file_id, "completion_window": "24h"}
        return self._client.read(Created, await self._client.post("/batches", body, costs=True)).job.id

    async def batches(self) -> Mapping[str, str]:
        """Return the id of each batch that carries one of our keys, by key; of equal keys the newest."""
        names = {file.id: file.filename for file in await self._filed(BATCHED) if file.filename.startswith(OURS)}
        listed = self._client.read(Batches, await self._client.get("/batches")).root or []
        named = [(names.get(batch.input_file_id or ""), batch) for batch in listed]
        named.sort(key=lambda pair: epoch(pair[1].created_at))
        return {name.removeprefix(OURS).removesuffix(".jsonl"): batch.id for name, batch in named if name}

    async def batch(self, batch_id: str) -> BatchState:
        """Return a batch, with its answers once it is over, or why it was refused as a whole."""
        batch = await self._seen(batch_id)
        state = BatchState(batch_id, batch.status in BATCH_OVER)
        files = [file for file in (batch.output_file_id, batch.error_file_id) if file]
        if not state.is_over:
            return state
        if batch.status == "FAILED" and not files:
            words = self._client.clean(batch.error or f"batch {batch_id} was refused, without a reason")
            return replace(state, refusal=batch_problem("", words))
        replies = batch_answers([await self._content(file) for file in files], self._client)
        return replace(state, replies=MappingProxyType(replies))

    def _ordered(self, order: JobOrder) -> Mapping[str, object]:
        return fine_tunes.ordered(order)

    def _job(self, answer: HttpReply) -> Job:
        return self._known(self._client.read(FineTune, answer).job())

    def _known(self, job: Job) -> Job:
        """Remember a job's key, or return it with the one that it was seen with."""
        if job.key:
            self._keys[job.job_id] = job.key
        return replace(job, key=self._keys.get(job.job_id, ""))

    async def _listed(self) -> list[Job]:
        """Return all jobs: they are one list without pages."""
        listed = self._client.read(Page[FineTune], await self._client.get(self.jobs_path)).data
        return [self._known(one.job()) for one in listed]

    async def _look(self, job_id: str) -> Job:
        job = self._job(await self._client.get(f"{self.jobs_path}/{job_id}"))
        if job_id not in self._keys:
            self._keys |= {one.job_id: one.key for one in await self._listed()}
        return await self._shown(self._known(job))

    async def _filed(self, purpose: str) -> Sequence[Filed]:
        listed = self._client.read(Page[File], await self._client.get("/files")).data
        broken = {"FAILED", "INVALID_FORMAT"}
        return [file for file in listed if file.purpose == purpose and file.processing_status not in broken]

    async def _upload(self, purpose: str, name: str, content: bytes) -> str:
        more = {"file_name": name, "file_type": "jsonl"}
        return self._client.read(
            File, await self._client.upload(purpose, name, content, path="/files/upload", more=more)
        ).id

    async def _seen(self, batch_id: str) -> TogetherBatch:
        return self._client.read(TogetherBatch, await self._client.get(f"/batches/{batch_id}"))

    async def _is_ending(self, batch_id: str) -> bool:
        return (await self._seen(batch_id)).status in BATCH_OVER
