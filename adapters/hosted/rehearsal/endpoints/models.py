"""Models: which there are; Azure's deployments, for a tuned model answers only under the name of one; and moderation."""

from __future__ import annotations

import re
import time

from pydantic import AliasPath, BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from adapters.hosted.rehearsal.api import ApiError, json_reply, read_body
from adapters.hosted.rehearsal.state.account import MockAccount
from adapters.hosted.rehearsal.state.records import Deployment


class DeploymentBody(BaseModel):
    """The body that makes a deployment, in the form of Azure's management plane."""

    model_config = ConfigDict(extra="ignore")

    model: str = Field(validation_alias=AliasPath("properties", "model", "name"))


class ModerationBody(BaseModel):
    """The body of a moderation: a text, or several."""

    model_config = ConfigDict(extra="ignore")

    input: str | list[str]
    model: str = "omni-moderation-latest"


async def listed(account: MockAccount, request: Request) -> Response:
    """GET /v1/models."""
    del request
    names = (*account.settings.models, *account.tuned)
    return json_reply({"object": "list", "data": [{"id": name, "object": "model", "created": 0} for name in names]})


async def deploy(account: MockAccount, request: Request) -> Response:
    """PUT .../deployments/{name}: it answers after a while."""
    model = (await read_body(request, DeploymentBody)).model
    if model not in account.settings.models and model not in account.tuned:
        message = f"The model '{model}' of this deployment does not exist."
        raise ApiError(400, message, code="DeploymentModelNotSupported", param="properties.model.name")
    name = request.path_params["name"]
    waits = account.settings.azure.deploy_seconds / account.settings.time_scale
    account.deployments[name] = Deployment(name, model, time.time() + waits)
    return json_reply(account.deployments[name].shown(), 201)


async def deployment(account: MockAccount, request: Request) -> Response:
    """GET .../deployments/{name}."""
    name = request.path_params["name"]
    if name not in account.deployments:
        raise ApiError(404, f"No deployment is called '{name}'.", code="DeploymentNotFound")
    return json_reply(account.deployments[name].shown())


async def moderate(account: MockAccount, request: Request) -> Response:
    """POST /v1/moderations: flags texts with a word of the settings. It is free, and knows one category."""
    body = await read_body(request, ModerationBody)
    texts = [body.input] if isinstance(body.input, str) else body.input
    words = "|".join(map(re.escape, account.settings.flagged_words))
    flagged = [bool(words) and re.search(rf"\b(?:{words})\b", text, re.IGNORECASE) is not None for text in texts]
    results = [{"flagged": one, "categories": {"illicit": one}} for one in flagged]
    return json_reply({"id": account.new_id("modr-"), "model": body.model, "results": results})
