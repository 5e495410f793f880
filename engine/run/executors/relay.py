"""Passes bundles on to a host in another process of this machine, unread. Imports next to nothing: it starts at once."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Client, Connection

PATIENCE_SECONDS = 60.0
"""How long to wait for a host to listen, which it does a moment after it was forked."""

END = b""
"""What a host says after the last attempts of a bundle."""


@dataclass(frozen=True, slots=True)
class Line:
    """Where a host listens.

    Attributes:
        address: A socket of this machine.
        key: What both sides must know.
    """

    address: str
    key: bytes


class Relay:
    """What sits in a host's seat.

    Args:
        line: Where the host listens.
    """

    def __init__(self, line: Line) -> None:
        """Call nobody yet."""
        self._line = line
        self._host: Connection | None = None

    def run(self, bundle: bytes) -> Iterator[bytes]:
        """Have a bundle run, and yield its stages' attempts as they end; both pickled.

        Raises:
            EOFError: The host has died.
            OSError: It never listened.
        """
        if self._host is None:
            self._host = connected(self._line)
        self._host.send_bytes(bundle)
        while (attempts := self._host.recv_bytes()) != END:
            yield attempts


def connected(line: Line) -> Connection:
    """Call a host, waiting for it to listen.

    Raises:
        ConnectionRefusedError: It did not listen for too long.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return Client(line.address, authkey=line.key)
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
