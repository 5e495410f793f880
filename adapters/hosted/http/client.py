"""Requests over the `openai` SDK's client: each is sent once, and what comes back is bytes of bounded number or a `ProviderError`.

The SDK's own retries are off: a POST whose reply was lost may have been paid for. Its reply types are not used either: they
are filled without being checked, so that a reply cut short would be taken for a whole one. A server on this machine is asked
directly, whatever proxy the environment names.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from itertools import cycle
from types import MappingProxyType
from typing import Any, NoReturn, TypeVar
from urllib.parse import urlsplit

import httpx2
import openai
from openai import AsyncOpenAI, DefaultAsyncHttpxClient, Omit
from pydantic import BaseModel, ValidationError

from adapters.hosted.http.errors import problem, scrubbed
from adapters.hosted.http.limits import rate_limits
from engine.domain.address import is_loopback
from engine.ports.chat import RateLimits
from engine.ports.provider import Access
from engine.ports.provider_errors import DeniedError, NoReplyError, ProviderError, RejectedError, UnavailableError

CONNECT_SECONDS = 10.0
POOLS = 16
"""Clients that take turns: one pool of connections looks at every one of them before each request."""

CONNECTIONS = httpx2.Limits(max_connections=1000, max_keepalive_connections=100, keepalive_expiry=3.0)
"""Idle connections are closed before servers close them, which many do after five seconds."""

MOST_BYTES = 64 * 2**20
MOST_FILE_BYTES = 2**30
"""A longer reply, or file, is not read to its end, whatever the server says of its length; unpacked, where it is compressed."""

CONTENT = "/content"
"""How the path of a file's content ends."""

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


class TooLongError(Exception):
    """A reply is longer than is read."""


class BoundedClient(DefaultAsyncHttpxClient):
    """The SDK's HTTP client, which reads no more of a reply than is reasonable."""

    async def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        """Send a request, and return its reply with the whole body.

        Raises:
            TooLongError: The body is longer than `MOST_BYTES`, or a file's than `MOST_FILE_BYTES`.
        """
        most = MOST_FILE_BYTES if request.url.path.endswith(CONTENT) else MOST_BYTES
        response = await super().send(request, **{**options, "stream": True})
        try:
            content = await _bounded(response, most)
        finally:
            await response.aclose()
        headers = [(name, value) for name, value in response.headers.multi_items() if name not in OF_THE_BODY]
        return httpx2.Response(response.status_code, headers=headers, content=content, request=request)


OF_THE_BODY = frozenset({"content-encoding", "content-length", "transfer-encoding"})
"""Headers of a body as it was sent, packed: what is returned is unpacked."""


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
        verify = httpx2.create_ssl_context()
        is_here = is_loopback(urlsplit(base_url).hostname)

        def client() -> AsyncOpenAI:
            http = BoundedClient(
                timeout=httpx2.Timeout(timeout, connect=CONNECT_SECONDS),
                verify=verify,
                limits=CONNECTIONS,
                follow_redirects=False,  # they would carry the key to another host
                trust_env=not is_here,  # it names proxies
            )
            return AsyncOpenAI(api_key=key, base_url=base_url, max_retries=0, timeout=timeout, http_client=http)

        self._clients = [client() for _ in range(POOLS)]
        self._turns = cycle(self._clients)
        self._key, self._timeout = key, timeout
        self._headers: dict[str, str | Omit] = dict(more)
        if header:
            self._headers |= {header: key, "Authorization": Omit()}

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled: the client holds the key."""
        raise TypeError("a connected session cannot be pickled: connect again where it is needed")

    async def get(self, path: str, query: Mapping[str, object] | None = None) -> HttpReply:
        """Ask for something."""
        options = self._options(query)
        return await self._once(lambda: next(self._turns).get(path, cast_to=httpx2.Response, options=options))

    async def post(self, path: str, body: object = None, *, costs: bool = False) -> HttpReply:
        """Send JSON.

        Args:
            path: Where to, after the base URL.
            body: What.
            costs: Whether it makes something that costs money, so that doubt about it matters.
        """
        options = self._options()
        return await self._once(
            lambda: next(self._turns).post(path, cast_to=httpx2.Response, body=body, options=options), costs=costs
        )

    async def put(self, path: str, body: object) -> HttpReply:
        """Make something that may be there already."""
        options = self._options()
        return await self._once(
            lambda: next(self._turns).put(path, cast_to=httpx2.Response, body=body, options=options)
        )

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
        options = self._options()
        options["headers"] = {**self._headers, "Content-Type": "multipart/form-data"}
        form = [("file", (name, content, "application/octet-stream"))]
        return await self._once(
            lambda: next(self._turns).post(
                path, cast_to=httpx2.Response, body={"purpose": purpose, **more}, files=form, options=options
            )
        )

    async def close(self) -> None:
        """Close the connections."""
        await asyncio.gather(*(client.close() for client in self._clients))

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

    def _options(self, query: Mapping[str, object] | None = None) -> Any:
        # With the SDK's own default, an administrator's key of the environment would do where ours is missing.
        options: dict[str, object] = {"security": {"bearer_auth": True}}
        if self._headers:
            options["headers"] = self._headers
        if query:
            options["params"] = query
        return options

    async def _once(self, send: Callable[[], Awaitable[httpx2.Response]], *, costs: bool = False) -> HttpReply:
        """Send once. The error is raised outside of the handler, so that it has no vendor's exception in its context."""
        try:
            async with asyncio.timeout(self._timeout):
                response = await send()
            return HttpReply(response.content, rate_limits(response.headers))
        except openai.OpenAIError as error:
            found = self._problem(error, costs=costs)
        except TimeoutError:
            found = NoReplyError(f"no reply within {self._timeout:g} seconds")
        except TooLongError as error:
            found = NoReplyError(str(error))
        except httpx2.InvalidURL as error:  # an id of the server's is in it
            found = RejectedError(f"the server named what cannot be in a URL: {self.clean(str(error))}")
        except UnicodeEncodeError:
            found = RejectedError("the text holds half of a character (a lone surrogate), which cannot be sent")
        raise found

    def _problem(self, error: openai.OpenAIError, *, costs: bool) -> ProviderError:
        if isinstance(error, openai.APIStatusError):
            return problem(error.status_code, error.body, error.response.headers, self.clean, costs=costs)
        cause = error.__cause__ or error
        words = f"{type(cause).__name__} {self.clean(str(cause))}".strip()
        if "CERTIFICATE_VERIFY_FAILED" in words:
            return RejectedError(f"the server's certificate is not trusted: {words}")
        if isinstance(cause, NEVER_SENT):
            return UnavailableError(f"no connection to the server: {words}")
        return NoReplyError(f"the connection broke before the reply was complete: {words}")


async def _bounded(response: httpx2.Response, most: int) -> bytes:
    """Return the body of a reply, unpacked.

    Raises:
        TooLongError: It is longer than that.
    """
    chunks, size = [], 0
    async for chunk in response.aiter_bytes():
        size += len(chunk)
        if size > most:
            raise TooLongError(f"the reply is longer than {most / 2**20:.0f} MB, and was not read to its end")
        chunks.append(chunk)
    return b"".join(chunks)
