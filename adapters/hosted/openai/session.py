"""An account at a server that implements OpenAI's API."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import TypeVar

from adapters.hosted.http.client import Client, HttpReply
from adapters.hosted.openai import bodies, replies
from adapters.hosted.openai.bodies import Limit
from adapters.hosted.openai.replies import (
    BatchReply,
    ChatReply,
    Event,
    Filed,
    FineTuningJob,
    Moderation,
    Page,
)
from adapters.hosted.training import tokens
from engine.ports.chat import ChatRequest, Completion
from engine.ports.provider import BatchState, Job, JobOrder, JobState, Step
from engine.ports.provider_errors import NoReplyError, RejectedError

TRAINING = "fine-tune"
PAGE = 100
FILES_A_PAGE = 10_000
MODERATION_MODEL = "omni-moderation-latest"

Item = TypeVar("Item", Filed, FineTuningJob, Event, BatchReply)


class OpenAISession:
    """One account, connected; see `engine.ports.provider.Session`. An API that differs from OpenAI's in some of it is a subclass.

    Two calls may take a request more than the protocol says, both free: a job's failure is looked up in its events, once a job;
    and the first request of a model that wants the longest answer under its other name is refused and sent again under that.
    """

    jobs_path = "/fine_tuning/jobs"

    def __init__(self, client: Client, limit: Limit) -> None:
        """Speak with a client.

        Args:
            client: Sends requests.
            limit: The name for the longest answer that is tried first.
        """
        self._client = client
        self._first_limit = limit
        self._limits: dict[str, Limit] = {}
        self._over: dict[str, Job] = {}

    async def upload(self, name: str, content: bytes) -> str:
        """Upload a training file under a name, and return its id."""
        return await self._upload(TRAINING, name, content)

    async def files(self) -> Mapping[str, str]:
        """Return the id of each training file that is there, by name; of equal names the newest."""
        found = await self._filed(TRAINING)
        return {file.filename: file.id for file in sorted(found, key=lambda file: file.created_at)}

    async def create_job(self, order: JobOrder) -> Job:
        """Start a fine-tuning job. Costs money: after `NoReplyError`, look for its key in `jobs` first."""
        return await self._shown(self._job(await self._client.post(self.jobs_path, self._ordered(order), costs=True)))

    async def jobs(self, since: float) -> Sequence[Job]:
        """Return the jobs created since then, seconds since the epoch, newest first.

        Servers count whole seconds and list the newest first: reading ends at the first page that is older altogether. The list
        is not filtered by the server: its filter takes one value of the metadata, and we want the jobs of every key.
        """
        floor, found = math.floor(since), list[Job]()
        async for page in self._pages(self.jobs_path, Page[FineTuningJob], {"limit": PAGE}):
            young = [replies.job(reply, self._client.clean) for reply in page if reply.created_at >= floor]
            found += [await self._shown(job) for job in young]
            if not young:
                break
        return found

    async def job(self, job_id: str) -> Job:
        """Return one job."""
        return await self._look(job_id)

    async def cancel_job(self, job_id: str) -> Job:
        """Cancel a job; one that is over is returned as it is."""
        try:
            answer = await self._client.post(f"{self.jobs_path}/{job_id}/cancel")
        except (RejectedError, NoReplyError):
            job = await self._look(job_id)
            if job.state.is_over:
                return job
            raise
        return await self._shown(self._job(answer))

    async def losses(self, job_id: str) -> Sequence[Step]:
        """Return a finished job's training losses: of its result file, or of its events where it has none."""
        job = self._client.read(FineTuningJob, await self._client.get(f"{self.jobs_path}/{job_id}"))
        for file_id in job.result_files or ():
            if steps := replies.steps_of_file(await self._content(file_id)):
                return steps
        return replies.steps_of_events(await self._events(job_id))

    async def complete(self, request: ChatRequest) -> Completion:
        """Ask a model."""
        limit = self._limits.get(request.model, self._first_limit)
        try:
            answer = await self._client.post("/chat/completions", bodies.chat(request, limit))
        except RejectedError as refusal:
            if request.model in self._limits or limit.value not in str(refusal):
                raise
            answer = await self._client.post("/chat/completions", bodies.chat(request, limit.other))
            limit = limit.other
        self._limits[request.model] = limit
        asked = sum(tokens(turn.text) for turn in request.turns)
        completion = replies.completion_of(self._client.read(ChatReply, answer), asked, answer.rate_limits)
        if len(completion.choices) != request.samples:
            refused = RejectedError(f"the server gave {len(completion.choices)} of {request.samples} samples")
            refused.used = completion.usage
            raise refused
        return completion

    async def flagged(self, texts: Sequence[str]) -> Sequence[bool]:
        """Tell which texts the provider's moderation endpoint flags."""
        if not texts:
            return ()
        answer = await self._client.post("/moderations", {"model": MODERATION_MODEL, "input": list(texts)})
        flags = [result.flagged for result in self._client.read(Moderation, answer).results]
        if len(flags) != len(texts):
            raise RejectedError(f"the moderation endpoint judged {len(flags)} of {len(texts)} texts")
        return flags

    async def upload_batch(self, key: str, requests: Mapping[str, ChatRequest]) -> str:
        """Upload requests by custom id, and return the file's id."""
        limits = {self._limits.get(request.model, self._first_limit) for request in requests.values()}
        limit = limits.pop() if len(limits) == 1 else self._first_limit
        lines = (
            {"custom_id": name, "method": "POST", "url": bodies.CHAT, "body": bodies.chat(request, limit)}
            for name, request in requests.items()
        )
        return await self._upload("batch", f"{key}.jsonl", bodies.lines(lines))

    async def submit_batch(self, key: str, file_id: str) -> str:
        """Hand in a batch, to be answered within a day at the batch price; returns its id."""
        body = {"input_file_id": file_id, "endpoint": bodies.CHAT, "completion_window": "24h"}
        answer = await self._client.post("/batches", {**body, "metadata": {replies.KEY: key}}, costs=True)
        return self._client.read(BatchReply, answer).id

    async def batches(self) -> Mapping[str, str]:
        """Return the id of each batch that carries one of our keys, by key; of equal keys the newest."""
        found = [batch async for batch in self._all("/batches", Page[BatchReply], {"limit": PAGE})]
        ours = ((batch.metadata or {}).get(replies.KEY, "") for batch in found)
        dated = sorted(zip(ours, found, strict=True), key=lambda pair: pair[1].created_at)
        return {key: batch.id for key, batch in dated if key}

    async def batch(self, batch_id: str) -> BatchState:
        """Return a batch, with its answers once it is over, or why it was refused as a whole."""
        batch = self._client.read(BatchReply, await self._client.get(f"/batches/{batch_id}"))
        state = BatchState(batch.id, batch.is_over)
        if not state.is_over:
            return state
        if refusal := replies.refusal(batch, self._client.clean):
            return replace(state, refusal=refusal)
        contents = [await self._content(file) for file in (batch.output_file_id, batch.error_file_id) if file]
        return replace(state, replies=MappingProxyType(replies.batch_answers(contents, self._client)))

    async def cancel_batch(self, batch_id: str) -> None:
        """Let a batch end before it is done; one that is over stays as it is."""
        try:
            await self._client.post(f"/batches/{batch_id}/cancel")
        except (RejectedError, NoReplyError):
            if not await self._is_ending(batch_id):
                raise

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    def _ordered(self, order: JobOrder) -> Mapping[str, object]:
        """Return the body that makes a job."""
        return bodies.job(order)

    def _job(self, answer: HttpReply) -> Job:
        """Read a job."""
        return replies.job(self._client.read(FineTuningJob, answer), self._client.clean)

    async def _filed(self, purpose: str) -> Sequence[Filed]:
        """Return the files of a purpose that can be used."""
        query = {"purpose": purpose, "limit": FILES_A_PAGE}
        return [
            file
            async for file in self._all("/files", Page[Filed], query)
            if file.purpose in {purpose, ""} and file.status not in {"error", "deleted"}
        ]

    async def _is_ending(self, batch_id: str) -> bool:
        """Tell whether a batch is over, or will soon be."""
        batch = self._client.read(BatchReply, await self._client.get(f"/batches/{batch_id}"))
        return batch.is_over or batch.status == "cancelling"

    async def _look(self, job_id: str) -> Job:
        return await self._shown(self._job(await self._client.get(f"{self.jobs_path}/{job_id}")))

    async def _shown(self, job: Job) -> Job:
        """Return a job as it stays; of one that failed, its events tell whether moderation kept its model back."""
        if job.job_id in self._over:
            return self._over[job.job_id]
        has_failed = job.state is JobState.FAILED or (job.state is JobState.SUCCEEDED and job.tuned_model is None)
        if has_failed and job.key:  # of other people's jobs, nobody asks why
            job = await self._explained(job)
        if job.state.is_over:
            self._over[job.job_id] = job
        return job

    async def _explained(self, job: Job) -> Job:
        try:
            events = await self._events(job.job_id)
        except RejectedError:
            events = []  # some servers keep no events
        blocked = replies.blocked_by(events)
        if blocked is not None:
            return replace(job, state=JobState.BLOCKED, reason=self._client.clean(blocked))
        last = next((event.message for event in events if event.level == "error"), "")
        reason = job.reason or self._client.clean(last) or f"the provider says `{job.state}` and names no model"
        return replace(job, state=JobState.FAILED, reason=reason)

    async def _events(self, job_id: str) -> list[Event]:
        return [event async for event in self._all(f"{self.jobs_path}/{job_id}/events", Page[Event], {"limit": PAGE})]

    async def _upload(self, purpose: str, name: str, content: bytes) -> str:
        return self._client.read(Filed, await self._client.upload(purpose, name, content)).id

    async def _content(self, file_id: str) -> bytes:
        return (await self._client.get(f"/files/{file_id}/content")).content

    async def _all(self, path: str, kind: type[Page[Item]], query: Mapping[str, object]) -> AsyncIterator[Item]:
        async for page in self._pages(path, kind, query):
            for item in page:
                yield item

    async def _pages(
        self, path: str, kind: type[Page[Item]], query: Mapping[str, object]
    ) -> AsyncIterator[Sequence[Item]]:
        after: dict[str, object] = {}
        while True:
            page = self._client.read(kind, await self._client.get(path, {**query, **after}))
            if page.data:
                yield page.data
                after = {"after": page.data[-1].id}
            if not (page.data and page.has_more):
                return
