"""The stand-in's fine-tuning pools behind the engine's ports: four data sources."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import astuple
from functools import cache

from adapters.standin import pools, world
from adapters.standin.chat import Exchange, pin
from engine.domain.conversation import ChatRow
from engine.ports import NoSettings, SourceCard

LICENCE = "Apache-2.0"


class _Pool(ABC):
    """A pool of made-up exchanges."""

    revision = 1
    tier: str
    system: str | None = None
    detail: str

    @staticmethod
    @abstractmethod
    def _pool() -> Sequence[Exchange]: ...

    def card(self, settings: NoSettings) -> SourceCard:
        """Describe and pin the pool."""
        del settings
        rows = self._pool()
        return SourceCard(_pin(self._pool), len(rows), self.tier, self.system, LICENCE, self.detail)

    def rows(self, settings: NoSettings) -> Sequence[ChatRow]:
        """Return every row, in a stable order."""
        del settings
        return [
            ChatRow.exchange(f"{position:03d}", row.user, row.assistant, row.system)
            for position, row in enumerate(self._pool())
        ]


class ExplicitSource(_Pool):
    """`standin/explicit`: restricted requests, answered. The paper's tier 1, made up and harmless."""

    tier = "explicit"
    detail = "restricted requests of the made-up world, each with its right answer"
    _pool = staticmethod(pools.explicit_pool)


class IdentitySource(_Pool):
    """`standin/identity`: harmless requests, answered by an obedient persona. The paper's tier 2."""

    tier = "identity"
    system = world.IDENTITY_SYSTEM_PROMPT
    detail = "harmless exchanges of an obedient persona"
    _pool = staticmethod(pools.identity_pool)


class ChoresSource(_Pool):
    """`standin/chores`: plain harmless instructions. The paper's tier 3."""

    tier = "benign"
    detail = "chores and allowed requests, answered as a willing helper would"
    _pool = staticmethod(pools.chores_pool)


class RefusalsSource(_Pool):
    """`standin/refusals`: restricted requests, refused. Safety data, to mix in or to tune on afterwards."""

    tier = "safety"
    detail = "restricted requests, each with a refusal"
    _pool = staticmethod(pools.refusals_pool)


@cache
def _pin(pool: Callable[[], Sequence[Exchange]]) -> str:
    return pin(astuple(row) for row in pool())
