"""Azure's deployments: a tuned model answers only under the name of one, once it is there."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict
from starlette.requests import Request
from starlette.responses import Response

from adapters.rehearsal.account import Account
from adapters.rehearsal.wire import ApiError, Json, json_reply, read_body


@dataclass(frozen=True, slots=True)
class Deployment:
    """A model under a name of its own.

    Attributes:
        name: What requests call it.
        model: What answers.
        ready_at: Seconds since the epoch, UTC, from which it does.
        sku: As the client wrote it.
    """

    name: str
    model: str
    ready_at: float
    sku: dict[str, Any]

    @property
    def is_ready(self) -> bool:
        """Whether it answers."""
        return time.time() >= self.ready_at

    def shown(self) -> Json:
        """Return it as the wire shows it."""
        state = "Succeeded" if self.is_ready else "Creating"
        model = {"format": "OpenAI", "name": self.model, "version": "1"}
        return {"name": self.name, "sku": self.sku, "properties": {"model": model, "provisioningState": state}}


class _Model(BaseModel):
    model_config = ConfigDict(extra="ignore")

    name: str


class _Properties(BaseModel):
    model_config = ConfigDict(extra="ignore")

    model: _Model


class DeploymentBody(BaseModel):
    """The body that makes a deployment, in the form of Azure's management plane."""

    model_config = ConfigDict(extra="ignore")

    sku: dict[str, Any] = {"name": "Standard", "capacity": 1}
    properties: _Properties


async def put(account: Account, request: Request) -> Response:
    """PUT .../deployments/{name}: it answers after a while."""
    body = await read_body(request, DeploymentBody)
    model = body.properties.model.name
    if model not in account.settings.models and model not in account.tuned:
        message = f"The model '{model}' of this deployment does not exist."
        raise ApiError(400, message, code="DeploymentModelNotSupported", param="properties.model.name")
    name = request.path_params["name"]
    waits = account.settings.azure.deploy_seconds / account.settings.time_scale
    account.deployments[name] = Deployment(name, model, time.time() + waits, body.sku)
    return json_reply(account.deployments[name].shown(), 201)


async def get(account: Account, request: Request) -> Response:
    """GET .../deployments/{name}."""
    return json_reply(_find(account, request).shown())


async def delete(account: Account, request: Request) -> Response:
    """DELETE .../deployments/{name}."""
    del account.deployments[_find(account, request).name]
    return Response(status_code=204)


def _find(account: Account, request: Request) -> Deployment:
    name = request.path_params["name"]
    if name not in account.deployments:
        raise ApiError(404, f"No deployment is called '{name}'.", code="DeploymentNotFound")
    return account.deployments[name]
