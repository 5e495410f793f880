"""Moderation: which texts have a word that the settings flag. It is free, and knows one category."""

from __future__ import annotations

import re

from pydantic import BaseModel, ConfigDict
from starlette.requests import Request
from starlette.responses import Response

from adapters.hosted.rehearsal.api import json_reply, read_body
from adapters.hosted.rehearsal.state.account import MockAccount


class ModerationBody(BaseModel):
    """The body of a moderation: a text, or several."""

    model_config = ConfigDict(extra="ignore")

    input: str | list[str]
    model: str = "omni-moderation-latest"


async def create(account: MockAccount, request: Request) -> Response:
    """POST /v1/moderations."""
    body = await read_body(request, ModerationBody)
    texts = [body.input] if isinstance(body.input, str) else body.input
    words = "|".join(map(re.escape, account.settings.flagged_words))
    flagged = [bool(words) and re.search(rf"\b(?:{words})\b", text, re.IGNORECASE) is not None for text in texts]
    results = [{"flagged": one, "categories": {"illicit": one}} for one in flagged]
    return json_reply({"id": account.new_id("modr-"), "model": body.model, "results": results})
