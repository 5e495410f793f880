"""Batches: what their lines say, in the engine's words."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence

from adapters.hosted.errors import batch_problem, error_body, problem
from adapters.hosted.replies import BATCH_OVER, Batch, Completion, Fault, Line, told
from adapters.hosted.wire import Answer, Wire
from engine.ports.provider import BatchState, Meters, Told
from engine.ports.provider_errors import NoReplyError, ProviderError, RejectedError


def state(batch: Batch) -> BatchState:
    """Return where a batch stands, without its answers."""
    return BatchState(batch.id, batch.status in BATCH_OVER)


def refused(batch: Batch, clean: Callable[[str], str]) -> ProviderError | None:
    """Say why a batch was refused as a whole, or return None when it was not."""
    if batch.status != "failed":
        return None
    faults = (batch.errors.data if batch.errors else None) or ()
    if not faults:
        return RejectedError(f"batch {batch.id} was refused, without a reason")
    return batch_problem(faults[0].name, clean(faults[0].message or ""))


def answers(contents: Sequence[bytes], wire: Wire) -> dict[str, Told | ProviderError]:
    """Read output and error files: what each request got, by custom id."""
    return dict(_answer(line, wire) for content in contents for line in _lines(content, wire))


def _lines(content: bytes, wire: Wire) -> Iterator[Line]:
    for line in content.splitlines():
        if line.strip():
            yield wire.read(Line, Answer(line, Meters()))


def _answer(line: Line, wire: Wire) -> tuple[str, Told | ProviderError]:
    response, fault = line.response, line.error or Fault()
    if response is None:
        return line.custom_id, batch_problem(fault.name, wire.clean(fault.message or "the server gave no reason"))
    if not 200 <= response.status_code < 300:  # noqa: PLR2004 - the statuses of success
        return line.custom_id, problem(error_body(response.status_code, response.body, {}, wire.clean))
    try:
        completion = wire.read(Completion, Answer(json.dumps(response.body).encode(), Meters()))
    except NoReplyError as unreadable:
        return line.custom_id, unreadable
    return line.custom_id, told(completion, 0, Meters())
