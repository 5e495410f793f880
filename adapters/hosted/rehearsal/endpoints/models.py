"""Models: which there are."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from adapters.hosted.rehearsal.api import ApiError, Json, json_reply
from adapters.hosted.rehearsal.limits.quotas import ORGANIZATION
from adapters.hosted.rehearsal.state.account import MockAccount


async def listed(account: MockAccount, request: Request) -> Response:
    """GET /v1/models."""
    del request
    return json_reply(
        {"object": "list", "data": [_shown(account, name) for name in (*account.settings.models, *account.tuned)]}
    )


async def retrieve(account: MockAccount, request: Request) -> Response:
    """GET /v1/models/{id}."""
    return json_reply(_shown(account, _found(account, request)))


async def delete(account: MockAccount, request: Request) -> Response:
    """DELETE /v1/models/{id}: a tuned one."""
    name = _found(account, request)
    if name not in account.tuned:
        raise ApiError(403, "You have insufficient permissions for this operation.")
    del account.tuned[name]
    return json_reply({"id": name, "object": "model", "deleted": True})


def _found(account: MockAccount, request: Request) -> str:
    name = str(request.path_params["model"])
    if name not in account.settings.models and name not in account.tuned:
        message = f"The model '{name}' does not exist"
        raise ApiError(404, message, code="model_not_found", param="model")
    return name


def _shown(account: MockAccount, name: str) -> Json:
    owner = "system" if name in account.settings.models else ORGANIZATION
    return {"id": name, "object": "model", "created": 0, "owned_by": owner}
