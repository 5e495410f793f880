"""Files: uploaded training files and batches, and what the server itself writes."""

from __future__ import annotations

import time

from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import Response

from adapters.hosted.rehearsal.api import ApiError, json_reply, page
from adapters.hosted.rehearsal.settings import FaultKind
from adapters.hosted.rehearsal.state.account import MockAccount
from adapters.hosted.rehearsal.state.records import StoredFile

PURPOSES = frozenset({"batch", "batch-api", "fine-tune"})
LARGEST = 512 * 2**20
PAGE = 10_000


async def upload(account: MockAccount, request: Request) -> Response:
    """POST /v1/files, or /v1/files/upload."""
    async with request.form(max_part_size=LARGEST) as form:
        part, purpose = form.get("file"), form.get("purpose")
        if not isinstance(part, UploadFile):
            raise ApiError(400, "'file' is a required property", param="file")
        if not isinstance(purpose, str) or purpose not in PURPOSES:
            message = f"'{purpose}' is not one of {sorted(PURPOSES)} - 'purpose'"
            raise ApiError(400, message, param="purpose")
        content, name = await part.read(), str(form.get("file_name") or part.filename or "upload")
    if not content:
        raise ApiError(400, "File is empty.", param="file")
    fault = account.faults.strikes(FaultKind.FILE_GONE, request.state.entry.call)
    return json_reply(keep(account, name, purpose, content, fault.seconds if fault else None).shown())


async def listed(account: MockAccount, request: Request) -> Response:
    """GET /v1/files: newest first."""
    purpose, until = request.query_params.get("purpose"), account.listed_until(request.state.entry.call)
    found = [
        file.shown()
        for file in reversed(account.files.values())
        if file.is_there and purpose in {None, file.purpose} and file.created_at <= until
    ]
    return page(request, found, PAGE)


async def retrieve(account: MockAccount, request: Request) -> Response:
    """GET /v1/files/{id}."""
    return json_reply(find(account, request.path_params["file_id"]).shown())


async def content(account: MockAccount, request: Request) -> Response:
    """GET /v1/files/{id}/content."""
    file = find(account, request.path_params["file_id"])
    return Response(file.content, media_type="application/octet-stream")


async def delete(account: MockAccount, request: Request) -> Response:
    """DELETE /v1/files/{id}."""
    file = find(account, request.path_params["file_id"])
    del account.files[file.file_id]
    return json_reply({"id": file.file_id, "object": "file", "deleted": True})


def keep(account: MockAccount, name: str, purpose: str, content: bytes, life: float | None = None) -> StoredFile:
    """Keep a file, for as many seconds as it is to live, and return it."""
    now = time.time()
    made = StoredFile(account.new_id("file-"), name, purpose, content, now, None if life is None else now + life)
    account.files[made.file_id] = made
    return made


def find(account: MockAccount, file_id: str) -> StoredFile:
    """Return a file.

    Raises:
        ApiError: 404, when there is none, or no more.
    """
    file = usable(account, file_id)
    if file is None:
        raise ApiError(404, f"No such File object: {file_id}", param="id")
    return file


def usable(account: MockAccount, file_id: str) -> StoredFile | None:
    """Return a file, or None where there is none, or no more."""
    file = account.files.get(file_id)
    return file if file is not None and file.is_there else None
