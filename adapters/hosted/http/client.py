"""Requests over HTTP: each is sent once, and what comes back is bytes of bounded number or a `ProviderError`.

Nothing is sent again here: a POST whose reply was lost may have been paid for. A server on this machine is asked directly,
whatever proxy the environment names. No vendor's SDK is used: their replies are filled without being checked, and their
retries and environment variables decide what only a spec should.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import cycle
from types import MappingProxyType
from typing import NoReturn, TypeVar
from urllib.parse import urlsplit

import httpx2
from pydantic import BaseModel, ValidationError

from adapters.hosted.http.errors import error_body, problem, scrubbed
from adapters.hosted.http.limits import rate_limits
from engine.domain.address import is_loopback
from engine.ports.chat import RateLimits
from engine.ports.provider import Access
from engine.ports.provider_errors import DeniedError, NoReplyError, ProviderError, RejectedError, UnavailableError

CONNECT_SECONDS = 10.0
POOLS = 16
"""Clients that take turns: one pool of connections looks at every one of them before each request."""

CONNECTIONS = httpx2.Limits(max_connections=1000, max_keepalive_connections=100)
MOST_BYTES = 64 * 2**20
MOST_FILE_BYTES = 2**30
"""A longer reply, or file, is not read to its end, whatever the server says of its length; unpacked, where it is compressed."""

NEVER_SENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.UnsupportedProtocol)
"""What goes wrong before a byte of the request has left."""

NOTHING: Mapping[str, str] = MappingProxyType({})

R = TypeVar("R", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class HttpReply:
    """A reply with a status of 200 to 299.

    Attributes:
        content: Its body.
        rate_limits: What its headers say.
    """

    content: bytes
    rate_limits: RateLimits


def key_of(access: Access) -> str:
    """Read the key from the environment.

    Raises:
        DeniedError: It is not there.
    """
    key = os.environ.get(access.key_env, "").strip()
    if not key:
        raise DeniedError(f"account `{access.account}`: the environment has no {access.key_env}")
    if not re.fullmatch(r"[!-~]+", key):  # a header could not hold it, and the error of who tries would show it
        raise DeniedError(f"account `{access.account}`: what {access.key_env} holds is no key")
    return key


def checked_url(account: str, url: str) -> str:
    """Return the URL if it is one, and holds neither user nor password: those would be shown wherever the URL is.

    Raises:
        RejectedError: It is none, or holds them.
    """
    try:
        parts = urlsplit(url)
        is_whole = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        raise RejectedError(f"account `{account}`: base_url is no URL") from None
    if parts.username is not None or parts.password is not None:
        raise RejectedError(
            f"account `{account}`: base_url holds a user or a password: the key belongs in the environment"
        )
    if not is_whole:
        raise RejectedError(f"account `{account}`: base_url is no http or https URL")
    return url


class Client:
    """One server and one key. It cannot be pickled, and shows neither."""

    def __init__(
        self, base_url: str, key: str, timeout: float, header: str = "", more: Mapping[str, str] = NOTHING
    ) -> None:
        """Connect to nothing yet.

        Args:
            base_url: Where the API is, up to and including the version.
            key: The key.
            timeout: Seconds that one request may take, from beginning to end.
            header: Name of the header that carries the key; empty for the usual `Authorization: Bearer`.
            more: Further headers of every request.
        """
        carries = {header: key} if header else {"Authorization": f"Bearer {key}"}
        headers = {"User-Agent": "dosimeter", "Accept": "application/json", **more, **carries}
        verify = httpx2.create_ssl_context()
        is_here = is_loopback(urlsplit(base_url).hostname)
        self._clients = [
            httpx2.AsyncClient(
                base_url=base_url,
                headers=headers,
                timeout=httpx2.Timeout(timeout, connect=CONNECT_SECONDS),
                limits=CONNECTIONS,
                verify=verify,
                follow_redirects=False,  # they would carry the key to another host
                trust_env=not is_here,  # it names proxies
            )
            for _ in range(POOLS)
        ]
        self._turns = cycle(self._clients)
        self._key, self._timeout = key, timeout

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled: the client holds the key."""
        message = "a connected session cannot be pickled: connect again where it is needed"
        raise TypeError(message)

    async def get(self, path: str, query: Mapping[str, object] | None = None) -> HttpReply:
        """Ask for something."""
        return await self._once(self._request("GET", path, query=query))

    async def download(self, path: str) -> bytes:
        """Return the content of a file."""
        return (await self._once(self._request("GET", path), most=MOST_FILE_BYTES)).content

    async def post(self, path: str, body: object = None, *, costs: bool = False) -> HttpReply:
        """Send JSON.

        Args:
            path: Where to, after the base URL.
            body: What.
            costs: Whether it makes something that costs money, so that doubt about it matters.
        """
        return await self._once(self._request("POST", path, body), costs=costs)

    async def put(self, path: str, body: object) -> HttpReply:
        """Make something that may be there already."""
        return await self._once(self._request("PUT", path, body))

    async def upload(
        self, purpose: str, name: str, content: bytes, *, path: str = "/files", more: Mapping[str, str] = NOTHING
    ) -> HttpReply:
        """Send a file.

        Args:
            purpose: What the server shall know that it is for.
            name: What it is called there.
            content: Its bytes.
            path: Where to, after the base URL.
            more: Further fields of the form.
        """
        form = {"file": (name, content, "application/octet-stream")}
        return await self._once(
            self._clients[0].build_request("POST", path, data={"purpose": purpose, **more}, files=form)
        )

    async def close(self) -> None:
        """Close the connections."""
        await asyncio.gather(*(client.aclose() for client in self._clients))

    def clean(self, text: str) -> str:
        """Return a provider's text as one short line without the key."""
        return scrubbed(text, self._key)

    def read(self, kind: type[R], reply: HttpReply) -> R:
        """Read a reply.

        Raises:
            NoReplyError: It is cut off, or no JSON, or not of this kind: nobody knows what was done.
        """
        try:
            return kind.model_validate_json(reply.content)
        except ValidationError as error:
            fault = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(part) for part in fault["loc"])
        words = f"{where}: {fault['msg']}" if where else fault["msg"]
        raise NoReplyError(f"the server's reply could not be read as {kind.__name__}: {self.clean(words)}")

    def _request(
        self, method: str, path: str, body: object = None, query: Mapping[str, object] | None = None
    ) -> httpx2.Request:
        """Make a request.

        Raises:
            RejectedError: A text in it cannot be sent.
        """
        params = {name: str(value) for name, value in query.items()} if query else None
        try:
            return self._clients[0].build_request(method, path, params=params, json=body)
        except UnicodeEncodeError:
            pass
        raise RejectedError("the text holds half of a character (a lone surrogate), which cannot be sent")

    async def _once(self, request: httpx2.Request, *, costs: bool = False, most: int = MOST_BYTES) -> HttpReply:
        """Send once. The error is raised outside of the handler, so that it has no vendor's exception in its context."""
        try:
            async with asyncio.timeout(self._timeout):
                response = await next(self._turns).send(request, stream=True)
                try:
                    content = await _bounded(response, most)
                finally:
                    await response.aclose()
        except httpx2.HTTPError as error:
            found = self._broken(error)
        except TimeoutError:
            found = NoReplyError(f"no reply within {self._timeout:g} seconds")
        else:
            if content is None:
                found = NoReplyError(f"the reply is longer than {most / 2**20:.0f} MB, and was not read to its end")
            elif response.is_success:
                return HttpReply(content, rate_limits(response.headers))
            else:
                refusal = error_body(response.status_code, _json(content), response.headers, self.clean)
                found = problem(refusal, costs=costs)
        raise found

    def _broken(self, error: httpx2.HTTPError) -> ProviderError:
        words = f"{type(error).__name__} {self.clean(str(error))}".strip()
        if "CERTIFICATE_VERIFY_FAILED" in words:
            return RejectedError(f"the server's certificate is not trusted: {words}")
        if isinstance(error, NEVER_SENT):
            return UnavailableError(f"no connection to the server: {words}")
        return NoReplyError(f"the connection broke before the reply was complete: {words}")


async def _bounded(response: httpx2.Response, most: int) -> bytes | None:
    """Return the body of a reply, unpacked; None when it is longer."""
    chunks, size = [], 0
    async for chunk in response.aiter_bytes():
        size += len(chunk)
        if size > most:
            return None
        chunks.append(chunk)
    return b"".join(chunks)


def _json(content: bytes) -> object:
    """Return the body of an error: JSON, or else its text."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return content.decode("utf-8", "replace")
