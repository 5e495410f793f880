"""The door of every endpoint: keys, faults, headers, and the audit of what passes."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from starlette.requests import Request
from starlette.responses import Response

from adapters.hosted.rehearsal.api import ApiError, json_reply
from adapters.hosted.rehearsal.settings import FaultKind
from adapters.hosted.rehearsal.state.account import MockAccount, no_quota
from adapters.hosted.rehearsal.state.audit import Entry

KEY_PREFIX = "sk-test-"

SERVER_ERROR = "The server had an error while processing your request. Sorry about that!"
REFUSALS = {
    FaultKind.THROTTLED: (429, "Please try again in {seconds:g}s.", "requests", "rate_limit_exceeded"),
    FaultKind.SLOW_DOWN: (429, "Slow down, and raise your rate bit by bit.", "rate_limit_error", "slow_down"),
    FaultKind.FORBIDDEN: (403, "You are not allowed to do this.", "invalid_request_error", "permission_denied"),
    FaultKind.ERROR: (500, SERVER_ERROR, "server_error", None),
    FaultKind.OVERLOADED: (503, "Please try again later.", "service_unavailable_error", "server_is_overloaded"),
}
"""By fault: status, message, type and code of the error."""

Endpoint: TypeAlias = Callable[[MockAccount, Request], Awaitable[Response]]

_log = logging.getLogger(__name__)


def guarded(account: MockAccount, endpoint: Endpoint) -> Callable[[Request], Awaitable[Response]]:
    """Return an endpoint behind the door."""

    async def passed(request: Request) -> Response:
        began = time.monotonic()
        with account.audit.flight(f"{request.method} {request.url.path}") as entry:
            request.state.entry = entry
            response = await _answered(account, request, endpoint)
            response.headers["x-request-id"] = account.new_id("req_")
            response.headers["openai-processing-ms"] = str(round(1000 * (time.monotonic() - began)))
            if entry.model and not account.is_together:  # sources differ on what the headers are called there
                response.headers.update(account.quotas.headers(entry.model))
            return response if entry.dropped else await _spoilt(account, request, response)

    return passed


async def _answered(account: MockAccount, request: Request, endpoint: Endpoint) -> Response:
    entry: Entry = request.state.entry
    try:
        _check_key(account, request)
        _strike(account, entry.call)
        if account.faults.strikes(FaultKind.RESET, entry.call):
            return await _dropped(request, FaultKind.RESET)
        return await endpoint(account, request)
    except ApiError as error:
        entry.code = error.code
        return json_reply(error.body, error.status, error.headers)
    except Exception:  # noqa: BLE001 - a bug of this server is a 500 to the client, in the API's form, and is logged
        _log.exception("a bug of the local mock server, in %s", entry.call)
        entry.code = "server_error"
        return json_reply(ApiError(500, SERVER_ERROR, "server_error").body, 500)


def _check_key(account: MockAccount, request: Request) -> None:
    """Let a test key pass.

    Raises:
        ApiError: 401, for every other one.
    """
    scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
    key = bearer.strip() if scheme.lower() == "bearer" else ""
    if account.is_azure:
        key = request.headers.get("api-key", "") or key
    if not key:
        message = "You didn't provide an API key. This server takes any key that begins with sk-test-."
        raise ApiError(401, message)
    if not key.startswith(KEY_PREFIX):
        message = "Incorrect API key provided. This server takes any key that begins with sk-test-, and no real one."
        raise ApiError(401, message, code="invalid_api_key")


def _strike(account: MockAccount, call: str) -> None:
    """Answer with an error, where a fault says so.

    Raises:
        ApiError: That error.
    """
    if account.faults.strikes(FaultKind.NO_QUOTA, call):
        raise no_quota()
    for fault_kind, (status, message, kind, code) in REFUSALS.items():
        if fault := account.faults.strikes(fault_kind, call):
            headers = account.quotas.retry_headers(fault.seconds) if status in {429, 503} else {}
            raise ApiError(status, message.format(seconds=fault.seconds), kind, code=code, headers=headers)


async def _spoilt(account: MockAccount, request: Request, response: Response) -> Response:
    """Do to a reply what faults do to it; what it tells of has been done."""
    entry: Entry = request.state.entry
    entry.status = response.status_code
    if fault := account.faults.strikes(FaultKind.STALL, entry.call):
        await asyncio.sleep(fault.seconds)
    if account.faults.strikes(FaultKind.LOST_REPLY, entry.call):
        return await _dropped(request, FaultKind.LOST_REPLY)
    if account.faults.strikes(FaultKind.TRUNCATED, entry.call):
        entry.code = FaultKind.TRUNCATED.value
        kept = bytes(response.body)[: len(response.body) // 2]
        headers = {name: value for name, value in response.headers.items() if name != "content-length"}
        return Response(kept, response.status_code, headers)
    return response


async def _dropped(request: Request, why: FaultKind) -> Response:
    """Break the connection; the response that is returned goes nowhere."""
    entry: Entry = request.state.entry
    request.state.transport.abort()
    entry.status, entry.code, entry.dropped = 0, why.value, True
    await asyncio.sleep(0)  # the loop now closes it
    return Response(status_code=500)
