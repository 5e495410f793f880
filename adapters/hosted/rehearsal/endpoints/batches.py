"""Batches: requests handed in as a file, answered later at the batch price, without passing the limits a minute."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from adapters.hosted.rehearsal.api import ApiError, Json, json_reply, page, read_body
from adapters.hosted.rehearsal.endpoints import chat, files
from adapters.hosted.rehearsal.state.account import MockAccount
from adapters.hosted.rehearsal.state.records import ACTIVE_BATCH, BatchBody, MockBatch

AT_ONCE = 64


class BatchRequest(BaseModel):
    """One request of a batch."""

    model_config = ConfigDict(extra="ignore")

    custom_id: str
    body: dict[str, Any]


async def create(account: MockAccount, request: Request) -> Response:
    """POST /v1/batches."""
    return json_reply(begun(account, await read_body(request, BatchBody)).shown())


def begun(account: MockAccount, body: BatchBody) -> MockBatch:
    """Begin a batch.

    Raises:
        ApiError: It cannot be, or there is no money for it.
    """
    if files.find(account, body.input_file_id).purpose not in {"batch", "batch-api"}:
        raise ApiError(400, "The input file's purpose must be batch.", code="invalid_value", param="input_file_id")
    account.check_money()
    batch = MockBatch(account.new_id("batch_"), body, time.time())
    account.batches[batch.batch_id] = batch
    go_on(account, batch)
    return batch


def go_on(account: MockAccount, batch: MockBatch) -> None:
    """Let a batch pass; what has a reply is not asked again. One whose file was deleted meanwhile fails."""
    file = account.files.get(batch.body.input_file_id)
    batch.work = account.start(_run(account, batch, file.content if file else b""))


async def listed(account: MockAccount, request: Request) -> Response:
    """GET /v1/batches: newest first."""
    return page(request, [batch.shown() for batch in newest_first(account, request)])


def newest_first(account: MockAccount, request: Request) -> list[MockBatch]:
    """Return the batches that a list shows."""
    until = account.listed_until(request.state.entry.call)
    return [batch for batch in reversed(account.batches.values()) if batch.created_at <= until]


async def retrieve(account: MockAccount, request: Request) -> Response:
    """GET /v1/batches/{id}."""
    return json_reply(find(account, request).shown())


async def cancel(account: MockAccount, request: Request) -> Response:
    """POST /v1/batches/{id}/cancel: what is answered already is in its output file."""
    return json_reply(cancelled(account, request).shown())


def cancelled(account: MockAccount, request: Request) -> MockBatch:
    """Cancel a batch.

    Raises:
        ApiError: There is none, or it is over.
    """
    batch = find(account, request)
    if batch.status not in ACTIVE_BATCH:
        raise ApiError(409, f"Cannot cancel a batch with status '{batch.status}'.")
    if batch.work is not None:
        batch.work.cancel()
    batch.status = "cancelled"
    _write(account, batch)
    return batch


async def _run(account: MockAccount, batch: MockBatch, content: bytes) -> None:
    """Let a batch pass, to its end."""
    lines = _lines(batch, content)
    if batch.errors:
        batch.status = "failed"
        return
    batch.total, batch.model = len(lines), str(lines[0].body.get("model", ""))
    batch.status = "in_progress"
    at_once = asyncio.Semaphore(AT_ONCE)
    done = {reply["custom_id"] for reply in (*batch.answered, *batch.refused)}
    answers = (_answer(account, batch, line, at_once) for line in lines if line.custom_id not in done)
    await asyncio.gather(account.pause(account.settings.durations.batch), *answers)
    batch.status = "finalizing"
    _write(account, batch)
    batch.status = "completed"


def _lines(batch: MockBatch, content: bytes) -> list[BatchRequest]:
    """Return the requests of a batch; what is wrong with them is noted in it."""
    lines: dict[str, BatchRequest] = {}
    for number, text in enumerate(content.splitlines(), start=1):
        try:
            line = BatchRequest.model_validate_json(text)
        except ValidationError:
            batch.errors.append(_problem("invalid_json_line", "This line is not parseable as valid JSON.", number))
            continue
        if line.custom_id in lines:
            message = f"The custom_id {line.custom_id} is not unique."
            batch.errors.append(_problem("duplicate_custom_id", message, number))
        lines[line.custom_id] = line
    if not lines and not batch.errors:
        batch.errors.append(_problem("empty_file", "The input file is empty.", 1))
    return list(lines.values())


async def _answer(account: MockAccount, batch: MockBatch, line: BatchRequest, at_once: asyncio.Semaphore) -> None:
    async with at_once:
        try:
            body = chat.ChatBody.model_validate(line.body)
            model = chat.model_of(account, body)
            answer = await chat.answered(account, body, model, f"POST {batch.body.endpoint}")
        except ValidationError as error:
            wrong = ApiError(400, f"Invalid request: {error.errors(include_url=False)[0]['msg']}")
            batch.refused.append(_reply(account, line, 400, wrong.body))
        except ApiError as error:
            batch.refused.append(_reply(account, line, error.status, error.body))
        else:
            batch.answered.append(_reply(account, line, 200, chat.shown(account, body.model, answer)))
            account.audit.bill(model, read=answer.read, made=answer.made, batched=True)


def _reply(account: MockAccount, line: BatchRequest, status: int, body: Json) -> Json:
    response = {"status_code": status, "request_id": account.new_id("req_"), "body": body}
    return {"id": account.new_id("batch_req_"), "custom_id": line.custom_id, "response": response, "error": None}


def _write(account: MockAccount, batch: MockBatch) -> None:
    """Write the output and error files, where there is something for them."""
    if batch.answered:
        batch.output_file_id = _kept(account, f"{batch.batch_id}_output.jsonl", batch.answered)
    if batch.refused:
        batch.error_file_id = _kept(account, f"{batch.batch_id}_error.jsonl", batch.refused)


def _kept(account: MockAccount, name: str, replies: list[Json]) -> str:
    text = "".join(f"{json.dumps(reply)}\n" for reply in replies)
    return files.keep(account, name, "batch_output", text.encode()).file_id


def find(account: MockAccount, request: Request) -> MockBatch:
    """Return the batch that a request names.

    Raises:
        ApiError: 404, when there is none.
    """
    batch_id = request.path_params["batch_id"]
    if batch_id not in account.batches:
        raise ApiError(404, f"No batch found with id '{batch_id}'.")
    return account.batches[batch_id]


def _problem(code: str, message: str, line: int) -> Json:
    return {"code": code, "message": message, "param": None, "line": line}
