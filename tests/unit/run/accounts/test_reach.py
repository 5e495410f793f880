"""Whether a server can be reached, seen with real sockets."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from engine.domain.sweep import Account
from engine.run.accounts.reach import unreachable


def account(address: tuple[str, int], scheme: str = "http") -> Account:
    return Account(provider="hosted/openai", base_url=f"{scheme}://{address[0]}:{address[1]}/v1")


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def address() -> Iterator[tuple[str, int]]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()


def test_whoever_listens_can_be_reached(address: tuple[str, int]) -> None:
    assert unreachable(account(address)) is None


def test_where_nobody_listens_it_is_said_where_and_why() -> None:
    with socket.socket() as bound:  # and so is nobody else's meanwhile
        bound.bind(("127.0.0.1", 0))
        host, port = bound.getsockname()
        why = unreachable(account((host, port)))
    assert why is not None
    assert why.startswith(f"{host}:{port}: ")
    assert "refused" in why


@pytest.mark.parametrize("variable", ["https_proxy", "ALL_PROXY"])
def test_behind_a_proxy_only_the_proxy_could_tell(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = account(("198.51.100.1", 9), "https")  # an address that is reserved for documents (RFC 5737)
    monkeypatch.setenv(variable, "http://127.0.0.1:9")
    assert unreachable(nowhere) is None
