"""Azure's deployments: a tuned model answers only under the name of one, once it is there."""

from __future__ import annotations

import time
from typing import Any

from pydantic import BaseModel, ConfigDict
from starlette.requests import Request
from starlette.responses import Response

from adapters.hosted.rehearsal.api import ApiError, json_reply, read_body
from adapters.hosted.rehearsal.state.account import MockAccount
from adapters.hosted.rehearsal.state.records import Deployment


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


async def put(account: MockAccount, request: Request) -> Response:
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


async def get(account: MockAccount, request: Request) -> Response:
    """GET .../deployments/{name}."""
    return json_reply(_find(account, request).shown())


async def delete(account: MockAccount, request: Request) -> Response:
    """DELETE .../deployments/{name}."""
    del account.deployments[_find(account, request).name]
    return Response(status_code=204)


def _find(account: MockAccount, request: Request) -> Deployment:
    name = request.path_params["name"]
    if name not in account.deployments:
        raise ApiError(404, f"No deployment is called '{name}'.", code="DeploymentNotFound")
    return account.deployments[name]
