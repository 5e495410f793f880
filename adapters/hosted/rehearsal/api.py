"""The dialects: errors, lists, JSON replies, ids. Nothing here knows what they are about."""

from __future__ import annotations

import json
import random
import string
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.responses import Response

Json: TypeAlias = dict[str, Any]
Body = TypeVar("Body", bound=BaseModel)


class ApiError(Exception):
    """What is answered instead.

    Attributes:
        status: HTTP status.
        body: `{"error": {...}}` with all four keys.
        headers: Further headers.
    """

    def __init__(
        self,
        status: int,
        message: str,
        kind: str = "invalid_request_error",
        *,
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Make the body."""
        super().__init__(message)
        self.status = status
        self.body: Json = {"error": {"message": message, "type": kind, "param": param, "code": code}}
        self.headers = dict(headers or {})

    @property
    def code(self) -> str:
        """The error's code, or its type where it has none."""
        error = self.body["error"]
        return str(error["code"] or error["type"])


def json_reply(content: Json | list[Json], status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return a JSON reply."""
    text = json.dumps(content, separators=(",", ":"))
    return Response(text, status, dict(headers or {}), media_type="application/json")


async def read_body(request: Request, model: type[Body]) -> Body:
    """Return a request's JSON body.

    Raises:
        ApiError: 400, when it is no JSON, or lacks something.
    """
    raw = await request.body()
    try:
        content = json.loads(raw) if raw else {}
    except ValueError as error:
        message = "We could not parse the JSON body of your request. The API expects a JSON payload."
        raise ApiError(400, message) from error
    try:
        return model.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        if first["type"] == "missing":
            message = f"Missing required parameter: '{where}'."
            raise ApiError(400, message, code="missing_required_parameter", param=where) from error
        message = f"Invalid value for '{where}': {first['msg']}."
        raise ApiError(400, message, code="invalid_value", param=where) from error


def page(request: Request, entries: Sequence[Json], largest: int = 100) -> Response:
    """Return one page of a list, from behind the entry called `after`.

    Args:
        request: Says `after` and `limit`.
        entries: All of it, in order; each has an `id`.
        largest: Most entries a page, and as many where the request does not say.

    Raises:
        ApiError: 400, when `limit` is no number in range, or `after` names nothing.
    """
    limit = request.query_params.get("limit", str(largest))
    if not limit.isdecimal() or not 1 <= int(limit) <= largest:
        message = f"Invalid 'limit': expected a number from 1 to {largest}, got '{limit}'."
        raise ApiError(400, message, code="invalid_value", param="limit")
    after, start = request.query_params.get("after"), 0
    if after:
        places = [place for place, entry in enumerate(entries) if entry["id"] == after]
        if not places:
            raise ApiError(400, f"Invalid 'after': no entry is called {after}.", code="invalid_value", param="after")
        start = places[0] + 1
    end = start + int(limit)
    return json_reply({"object": "list", "data": list(entries[start:end]), "has_more": end < len(entries)})


def id_maker(seed: int, life: int = 0) -> Callable[[str], str]:
    """Return a maker of ids that look like the real ones and are the same for the same seed, in the same life of an account.

    >>> id_maker(0)("ftjob-") == id_maker(0)("ftjob-") != id_maker(0, 1)("ftjob-")
    True
    """
    draws: dict[str, random.Random] = {}

    def make(prefix: str) -> str:
        draw = draws.setdefault(prefix, random.Random(f"{seed} {life} {prefix}"))  # noqa: S311 - no secret
        return prefix + "".join(draw.choices(string.ascii_letters + string.digits, k=24))

    return make
