"""Whether an account's server can be reached at all, before anything is begun: a wrong address costs a minute of retries later."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from engine import registry
from engine.domain.adapters import Kind
from engine.domain.address import is_loopback
from engine.domain.sweep import Account

SECONDS = 5.0
"""How long a server may take to accept a connection."""

PORTS = {"http": 80, "https": 443}


def unreachable(account: Account) -> str | None:
    """Say why no connection to an account's server can be had, or return None: it can, or only a proxy could tell.

    Nothing is sent: no request, and no key.
    """
    url = urlsplit(account.base_url or registry.adapter(Kind.PROVIDER, account.provider).base_url or "")
    host, port = url.hostname, url.port or PORTS.get(url.scheme)
    if host is None or port is None:
        return None  # whoever connects says what is wrong with it
    if {url.scheme, "all"} & getproxies().keys() and not (is_loopback(host) or proxy_bypass(host)):
        return None
    try:
        socket.create_connection((host, port), SECONDS).close()
    except OSError as error:
        return f"{host}:{port}: {error.strerror or error}"
    return None
