"""An Azure account: a trained model answers once it is deployed.

Source: Microsoft's guide on deploying fine-tuned models and its management reference for deployments, version 2024-10-01.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

from pydantic import AliasPath, Field

from adapters.hosted.http.client import Client, checked_url
from adapters.hosted.http.reply import Reply
from adapters.hosted.openai.bodies import Limit
from adapters.hosted.openai.session import OpenAISession
from engine.ports.provider import Access, Job, JobOrder, JobState
from engine.ports.provider_errors import DeniedError, RejectedError

VERSION = "2024-10-01"
READY = "Succeeded"
BROKEN = frozenset({"Failed", "Canceled", "Deleting"})


class Deployment(Reply):
    """A deployment, and where it stands."""

    state: str = Field(default="", validation_alias=AliasPath("properties", "provisioningState"))


@dataclass(frozen=True, slots=True)
class Plane:
    """The management of an account's deployments.

    Attributes:
        client: Sends the requests.
        sku: The kind of deployment.
    """

    client: Client
    sku: str

    async def state(self, name: str) -> str | None:
        """Return where a deployment stands, or None when there is none of this name."""
        try:
            answer = await self.client.get(_path(name))
        except RejectedError as refusal:
            if str(refusal).startswith("404"):
                return None
            raise
        return self.client.read(Deployment, answer).state

    async def deploy(self, name: str, model: str) -> str:
        """Deploy a trained model, and return where that stands; doing it twice does it once."""
        body = {
            "sku": {"name": self.sku, "capacity": 1},
            "properties": {"model": {"format": "OpenAI", "name": model, "version": "1"}},
        }
        return self.client.read(Deployment, await self.client.put(_path(name), body)).state


def plane_of(access: Access) -> Plane | None:
    """Return the management plane that the environment names, or None when it names none."""
    url, token, sku = (os.environ.get(f"{access.key_env}_DEPLOYMENTS_{name}", "") for name in ("URL", "TOKEN", "SKU"))
    if not url or not token:
        return None
    client = Client(checked_url(access.account, url), token.strip(), access.timeout)
    return Plane(client, sku or "standard")


class AzureSession(OpenAISession):
    """One account at Azure. A job is running until its model is deployed; `job` deploys it, and `jobs` only looks."""

    def __init__(self, client: Client, plane: Plane | None, access: Access) -> None:
        """Speak over a client, and deploy on a plane."""
        super().__init__(client, Limit.NEW)
        self._plane = plane
        self._access = access
        self._ready: dict[str, Job] = {}

    async def create_job(self, order: JobOrder) -> Job:
        """Start a fine-tuning job, unless its model could not be deployed: then nothing is spent."""
        self._deployable()
        return await super().create_job(order)

    async def jobs(self, since: float) -> Sequence[Job]:
        """Return the jobs created since then; one whose deployment `job` has not seen ready is running."""
        return [self._ready.get(job.job_id, _waiting(job)) for job in await super().jobs(since)]

    async def job(self, job_id: str) -> Job:
        """Return one job; when it is trained, deploy its model, or look how far that is: one or two requests more."""
        if job_id in self._ready:
            return self._ready[job_id]
        job = await self._look(job_id)
        if job.state is not JobState.SUCCEEDED or job.tuned_model is None:
            return job
        plane, name = self._deployable(), f"dosimeter-{job_id.removeprefix('ftjob-')}"
        state = await plane.state(name) or await plane.deploy(name, job.tuned_model)
        if state in BROKEN:
            raise RejectedError(
                f"job {job_id} is trained, and its deployment `{name}` is {state}: delete it and run again"
            )
        if state != READY:
            return _waiting(job)
        self._ready[job_id] = replace(job, tuned_model=name)
        return self._ready[job_id]

    async def close(self) -> None:
        """Close the connections."""
        await super().close()
        if self._plane is not None:
            await self._plane.client.close()

    def _deployable(self) -> Plane:
        if self._plane is None:
            names = " and ".join(f"{self._access.key_env}_DEPLOYMENTS_{name}" for name in ("URL", "TOKEN"))
            raise DeniedError(
                f"account `{self._access.account}`: to deploy trained models, set {names} in the environment"
            )
        return self._plane


def _waiting(job: Job) -> Job:
    return replace(job, state=JobState.RUNNING, tuned_model=None) if job.state is JobState.SUCCEEDED else job


def _path(name: str) -> str:
    return f"/deployments/{name}?api-version={VERSION}"
