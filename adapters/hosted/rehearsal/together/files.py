"""Together's forms of files and batches.

A file comes in one request, or as the SDK sends it: told of, put where the reply points to, and looked through. A batch says
neither how many of its requests are done nor what it was called by who made it.
"""

from __future__ import annotations

from dataclasses import replace

from starlette.datastructures import FormData, UploadFile
from starlette.requests import Request
from starlette.responses import Response

from adapters.hosted.rehearsal.api import ApiError, Json, json_reply, read_body
from adapters.hosted.rehearsal.endpoints import batches, files
from adapters.hosted.rehearsal.endpoints.batches import ENDPOINT, WINDOW
from adapters.hosted.rehearsal.endpoints.files import LARGEST
from adapters.hosted.rehearsal.settings import FaultKind
from adapters.hosted.rehearsal.state.account import MockAccount
from adapters.hosted.rehearsal.state.records import BatchBody, MockBatch, StoredFile
from adapters.hosted.rehearsal.together.fine_tunes import moment

PURPOSES = frozenset({"fine-tune", "batch-api", "eval", "calibration"})
PLACE = "/__put/{file_id}"
FOUND = 302
STATES = {"finalizing": "IN_PROGRESS", "cancelling": "CANCELLED"}
"""By OpenAI's; all others have OpenAI's names, in capitals."""


class Handed(BatchBody):
    """The body that creates a batch."""

    completion_window: str = WINDOW


async def upload(account: MockAccount, request: Request) -> Response:
    """POST /v1/files/upload: a file in one request."""
    async with request.form(max_part_size=LARGEST) as form:
        part = form.get("file")
        if not isinstance(part, UploadFile):
            raise ApiError(400, "'file' is a required property", param="file")
        name, purpose, content = _text(form, "file_name"), _purpose(form), await part.read()
    if not content:
        raise ApiError(400, "File is empty.", param="file")
    return json_reply(_shown(_kept(account, request, name, purpose, content)))


async def begin(account: MockAccount, request: Request) -> Response:
    """POST /v1/files: says where the content is to be put."""
    async with request.form() as form:
        name, purpose = _text(form, "file_name"), _purpose(form)
    file = _kept(account, request, name, purpose, b"")
    place = str(request.base_url).rstrip("/") + PLACE.format(file_id=file.file_id)
    return Response(status_code=FOUND, headers={"location": place, "x-together-file-id": file.file_id})


async def put(account: MockAccount, request: Request) -> Response:
    """PUT the content of a file; whoever knows the place may."""
    file = account.files.get(request.path_params["file_id"])
    if file is None or file.content:
        return json_reply(ApiError(404, "Nothing is awaited here.").body, 404)
    account.files[file.file_id] = replace(file, content=await request.body())
    return Response()


async def listed(account: MockAccount, request: Request) -> Response:
    """GET /v1/files: all of them, newest first."""
    until = account.listed_until(request.state.entry.call)
    found = [file for file in reversed(account.files.values()) if file.is_there and file.created_at <= until]
    return json_reply({"data": [_shown(file) for file in found]})


async def retrieve(account: MockAccount, request: Request) -> Response:
    """GET /v1/files/{id}, and POST /v1/files/{id}/preprocess: files are looked through by the jobs."""
    return json_reply(_shown(files.find(account, request.path_params["file_id"])))


async def create_batch(account: MockAccount, request: Request) -> Response:
    """POST /v1/batches."""
    body = await read_body(request, Handed)
    if body.endpoint != ENDPOINT:
        raise ApiError(400, f"This server batches {ENDPOINT} only.", code="invalid_value", param="endpoint")
    file = files.find(account, body.input_file_id)
    if file.purpose != "batch-api":
        raise ApiError(400, "The input file's purpose must be batch-api.", param="input_file_id")
    return json_reply({"job": _batch(batches.begun(account, body)), "warning": None}, 201)


async def batches_listed(account: MockAccount, request: Request) -> Response:
    """GET /v1/batches: a bare list, newest first."""
    until = account.listed_until(request.state.entry.call)
    found = [batch for batch in reversed(account.batches.values()) if batch.times["created_at"] <= until]
    return json_reply([_batch(batch) for batch in found])


async def retrieve_batch(account: MockAccount, request: Request) -> Response:
    """GET /v1/batches/{id}."""
    return json_reply(_batch(batches.find(account, request)))


async def cancel_batch(account: MockAccount, request: Request) -> Response:
    """POST /v1/batches/{id}/cancel."""
    return json_reply(_batch(batches.cancelled(account, request)))


def _kept(account: MockAccount, request: Request, name: str, purpose: str, content: bytes) -> StoredFile:
    fault = account.faults.strikes(FaultKind.FILE_GONE, request.state.entry.call)
    return files.keep(account, name, purpose, content, fault.seconds if fault else None)


def _purpose(form: FormData) -> str:
    purpose = _text(form, "purpose")
    if purpose not in PURPOSES:
        raise ApiError(400, f"'{purpose}' is not one of {sorted(PURPOSES)} - 'purpose'", param="purpose")
    return purpose


def _text(form: FormData, name: str) -> str:
    found = form.get(name)
    if not isinstance(found, str) or not found:
        raise ApiError(400, f"'{name}' is a required property", param=name)
    return found


def _shown(file: StoredFile) -> Json:
    return {
        "id": file.file_id,
        "object": "file",
        "bytes": len(file.content),
        "created_at": int(file.created_at),
        "filename": file.name,
        "FileType": "jsonl",
        "purpose": file.purpose,
        "processing_status": "COMPLETED" if file.content else "PENDING",
    }


def _batch(batch: MockBatch) -> Json:
    done = len(batch.answered) + len(batch.refused)
    return {
        "id": batch.batch_id,
        "user_id": "user-rehearsal",
        "endpoint": batch.body.endpoint,
        "input_file_id": batch.body.input_file_id,
        "status": STATES.get(batch.status, batch.status.upper()),
        "model_id": batch.model,
        "progress": 100.0 * done / batch.total if batch.total else 0.0,
        "created_at": moment(batch.times["created_at"]),
        "output_file_id": batch.output_file_id,
        "error_file_id": batch.error_file_id,
        "error": "; ".join(problem["message"] for problem in batch.errors) or None,
    }
