"""What a provider brings for rehearsals: a local mock server that implements its API."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, Protocol

from engine.domain.price import PriceUnit
from engine.domain.quota import Quota
from engine.domain.stage import StageKind
from engine.domain.written import Written
from engine.ports.warm import Warm


@dataclass(frozen=True, slots=True)
class MockModel:
    """A model that a sweep uses at a provider.

    Attributes:
        name: Its name there; of a tuned model the base's, because it has none before it is tuned.
        is_tuned: Whether it is tuned before.
        usd: US dollars by unit, as far as prices are known.
    """

    name: str
    kind: StageKind
    is_tuned: bool = False
    usd: Mapping[PriceUnit, Decimal] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MockOrder:
    """An account that a mock server shall stand for.

    Attributes:
        quota: The account's limits; those of a minute are already `speed` times as high.
        models: What the sweep uses there.
        folder: Where the server keeps what it has; the next one with this folder goes on from there.
        speed: How many times faster than at the provider time passes, > 0.
    """

    quota: Quota
    models: Sequence[MockModel]
    folder: Path
    speed: float


@dataclass(frozen=True, slots=True)
class MockAudit:
    """What a mock server did and billed: the truth, which a real provider does not tell.

    Attributes:
        requests: Requests that came.
        rate_limited: Of them, how many were refused because they came too fast.
        peak_in_flight: The most that were in flight at a time.
        usd: US dollars billed.
    """

    requests: int
    rate_limited: int
    peak_in_flight: int
    usd: Decimal


@dataclass(frozen=True, slots=True)
class Tools:
    """What the engine lends to a mock server.

    Attributes:
        adapter: Returns the installed adapter of a kind (an entry-point group's last word, such as `tuners`) and a name.
        warm: Makes an empty `Warm`; it can be pickled.
    """

    adapter: Callable[[str, str], Any]
    warm: Callable[[], Warm]


class MockServer(Protocol):
    """A server on this machine alone that implements a provider's API."""

    @property
    def settings(self) -> type[Written]:
        """The model of its settings, every one with a default."""

    @property
    def defaults(self) -> Mapping[str, object]:
        """The settings that differ for this provider, where one server implements the APIs of several."""

    @property
    def key(self) -> str:
        """A key that it takes. It takes none that could be real."""

    def settings_for(self, order: MockOrder) -> Mapping[str, object]:
        """Return the settings with which it stands for an account."""

    def serve(self, settings: Written, port: int, tools: Tools, ready: Callable[[str], None]) -> None:
        """Serve until KeyboardInterrupt is raised.

        Args:
            settings: An instance of `settings`.
            port: On which port; 0 for one that is free.
            tools: What it may use.
            ready: Called with the base URL, for an account's `base_url`, once requests are taken.

        Raises:
            OSError: The port is taken.
        """

    def environment(self, base_url: str, key_env: str) -> Mapping[str, str]:
        """Return the variables that an account needs to reach a running server: its key, and what else its provider reads."""

    def audit(self, base_url: str) -> MockAudit:
        """Return what a running server has done so far."""
