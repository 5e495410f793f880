"""Moderation: which texts have a word that the settings flag. It is free, and knows one category of the thirteen."""

from __future__ import annotations

import re
from typing import Any

from pydantic import BaseModel, ConfigDict
from starlette.requests import Request
from starlette.responses import Response

from adapters.hosted.rehearsal.api import Json, json_reply, read_body
from adapters.hosted.rehearsal.state.account import MockAccount

CATEGORIES = (
    "harassment",
    "harassment/threatening",
    "hate",
    "hate/threatening",
    "illicit",
    "illicit/violent",
    "self-harm",
    "self-harm/intent",
    "self-harm/instructions",
    "sexual",
    "sexual/minors",
    "violence",
    "violence/graphic",
)
FLAGGED = "illicit"
SCORES = (0.0001, 0.97)


class ModerationBody(BaseModel):
    """The body of a moderation: a text, several, or parts of one."""

    model_config = ConfigDict(extra="ignore")

    input: str | list[str] | list[dict[str, Any]]
    model: str = "omni-moderation-latest"

    @property
    def texts(self) -> list[str]:
        """What is to be looked at, each on its own."""
        if isinstance(self.input, str):
            return [self.input]
        texts = [text for text in self.input if isinstance(text, str)]
        parts = [str(part.get("text", "")) for part in self.input if isinstance(part, dict)]
        return texts + ([" ".join(parts)] if parts else [])


async def create(account: MockAccount, request: Request) -> Response:
    """POST /v1/moderations."""
    body = await read_body(request, ModerationBody)
    words = "|".join(map(re.escape, account.settings.flagged_words))
    flagged = re.compile(rf"\b(?:{words})\b", re.IGNORECASE) if words else None
    results = [_result(is_flagged=flagged is not None and flagged.search(text) is not None) for text in body.texts]
    return json_reply({"id": account.new_id("modr-"), "model": body.model, "results": results})


def _result(*, is_flagged: bool) -> Json:
    hits = {category: is_flagged and category == FLAGGED for category in CATEGORIES}
    return {
        "flagged": is_flagged,
        "categories": hits,
        "category_scores": {category: SCORES[hit] for category, hit in hits.items()},
        "category_applied_input_types": {category: ["text"] for category in CATEGORIES},
    }
