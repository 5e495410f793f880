"""The HTTP server around the application: loopback only, in the foreground or beside whoever starts it."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from adapters.hosted.rehearsal.app import AZURE_PREFIX, OPENAI_PREFIX, application
from adapters.hosted.rehearsal.backend.parts import Backend
from adapters.hosted.rehearsal.backend.process import ModelProcess
from adapters.hosted.rehearsal.settings import ServerSettings
from adapters.hosted.rehearsal.state import memory
from adapters.hosted.rehearsal.state.account import MockAccount, StartProcess

HOST = "127.0.0.1"
START_SECONDS = 30.0


class _Wire(H11Protocol):
    """HTTP/1.1 whose requests know their connection, so that faults can break it."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as in uvicorn itself
        super().connection_made(transport)
        self.app_state = {**self.app_state, "transport": transport}


def listen(port: int) -> socket.socket:
    """Return a socket of this machine alone, where clients may queue from now on.

    Args:
        port: Its port; 0 for any that is free.

    Raises:
        OSError: The port is taken.
    """
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # named: only then is TCP_NODELAY set
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((HOST, port))
        bound.listen()
    except OSError:
        bound.close()
        raise
    return bound


def base_url(bound: socket.socket, settings: ServerSettings) -> str:
    """Return what a client takes as its base URL."""
    prefix = AZURE_PREFIX if settings.dialect == "azure" else OPENAI_PREFIX
    return f"http://{HOST}:{bound.getsockname()[1]}{prefix}"


def serve(bound: socket.socket, settings: ServerSettings, backend: Backend, ready: Callable[[], None]) -> None:
    """Serve until a signal ends it.

    Args:
        bound: Where to listen; it is closed at the end.
        settings: How to behave.
        backend: What trains, answers and grades.
        ready: Called once requests are taken.
    """
    _server(settings, backend, ready).run(sockets=[bound])


@contextmanager
def serving(
    settings: ServerSettings, backend: Backend, port: int = 0, process: StartProcess = ModelProcess
) -> Iterator[str]:
    """Serve in a thread beside the caller, and yield the base URL.

    Raises:
        RuntimeError: It did not start.
    """
    is_ready = threading.Event()
    server = _server(settings, backend, is_ready.set, process)
    bound = listen(port)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
    thread.start()
    try:
        if not is_ready.wait(START_SECONDS):
            raise RuntimeError("the local mock server did not start")
        yield base_url(bound, settings)
    finally:
        server.should_exit = True
        thread.join()
        bound.close()


def _server(
    settings: ServerSettings, backend: Backend, ready: Callable[[], None], process: StartProcess = ModelProcess
) -> uvicorn.Server:
    options: dict[str, Any] = {"access_log": False, "log_level": "warning", "ws": "none", "proxy_headers": False}
    account = MockAccount(settings, backend, process)
    memory.recall(account)
    app = application(account, ready)
    return uvicorn.Server(uvicorn.Config(app, http=_Wire, timeout_graceful_shutdown=1, **options))
