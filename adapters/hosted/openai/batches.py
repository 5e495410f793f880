"""Batches: what their lines say, in the engine's words."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence

from adapters.hosted.http.client import Client, HttpReply
from adapters.hosted.http.errors import batch_problem, problem
from adapters.hosted.openai.replies import BatchLine, BatchReply, ChatReply, Fault, completion_of
from engine.ports.chat import Completion, RateLimits
from engine.ports.provider_errors import NoReplyError, ProviderError, RejectedError


def refused(batch: BatchReply, clean: Callable[[str], str]) -> ProviderError | None:
    """Say why a batch was refused as a whole, or return None when it was not."""
    if batch.status != "failed":
        return None
    if not batch.errors:
        return RejectedError(f"batch {batch.id} was refused, without a reason")
    return batch_problem(batch.errors[0].name, clean(batch.errors[0].message or ""))


def answers(contents: Sequence[bytes], client: Client) -> dict[str, Completion | ProviderError]:
    """Read output and error files: what each request got, by custom id."""
    return dict(_answer(line, client) for content in contents for line in _lines(content, client))


def _lines(content: bytes, client: Client) -> Iterator[BatchLine]:
    for line in content.splitlines():
        if line.strip():
            yield client.read(BatchLine, HttpReply(line, RateLimits()))


def _answer(line: BatchLine, client: Client) -> tuple[str, Completion | ProviderError]:
    response, fault = line.response, line.error or Fault()
    if response is None:
        return line.custom_id, batch_problem(fault.name, client.clean(fault.message or "the server gave no reason"))
    if not 200 <= response.status_code < 300:  # noqa: PLR2004 - the statuses of success
        return line.custom_id, problem(response.status_code, response.body, {}, client.clean)
    try:
        reply = client.read(ChatReply, HttpReply(json.dumps(response.body).encode(), RateLimits()))
    except NoReplyError as unreadable:
        return line.custom_id, unreadable
    return line.custom_id, completion_of(reply, 0, RateLimits())
