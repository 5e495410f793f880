"""Addresses of servers."""

from __future__ import annotations

from ipaddress import ip_address


def is_loopback(host: str | None) -> bool:
    """Tell whether a host is this machine, by its name: what is sent there must never go through a proxy.

    >>> [is_loopback(host) for host in ("localhost", "127.0.0.1", "::1", "127.9.9.9", "api.example.com", None)]
    [True, True, True, True, False, False]
    """
    if host is None:
        return False
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost" or host.lower().endswith(".localhost")
