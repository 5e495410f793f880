"""Batches are paid for once too: looked for from the moment at which the request may have been heard last."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import pytest

from engine.domain.sweep import Account
from engine.hosted import Ask, BatchState, Choice, Ending, Session, Told, Turn
from engine.hosted_errors import ProviderError, Rejected, Unanswered
from engine.run.account.batches import Batches
from engine.run.account.journal import JobRecord, Journal
from engine.run.account.patience import Patience

LISTED_AFTER, LAG = 0.15, 0.2
ASKS = [Ask("m", (Turn("user", text),), 8) for text in ("one", "two", "one")]


@dataclass
class Shop:
    """An account: the batches that it took, by id, and what becomes of the next request to take one.

    Attributes:
        takes: Seconds that the request takes.
        fails: The error that it ends in, though it was heard; None where it is answered.
        taken: When each batch was taken, by key.
        asks: The asks of each.
    """

    takes: float = 0.0
    fails: ProviderError | None = None
    taken: list[tuple[str, float]] = field(default_factory=list)
    asks: list[Mapping[str, Ask]] = field(default_factory=list)

    async def submit_batch(self, key: str, asks: Mapping[str, Ask]) -> str:
        await asyncio.sleep(self.takes)
        self.taken.append((key, time.time()))
        self.asks.append(asks)
        if (error := self.fails) is not None:
            self.fails = None
            raise error
        return f"batch-{len(self.taken) - 1}"

    async def batches(self) -> Mapping[str, str]:
        seen = time.time() - LISTED_AFTER
        return {key: f"batch-{place}" for place, (key, at) in enumerate(self.taken) if at <= seen}

    async def batch(self, batch_id: str) -> BatchState:
        asks = self.asks[int(batch_id.removeprefix("batch-"))]
        told = {name: Told((Choice(ask.turns[0].text.upper(), Ending.STOP),), 1, 0, 1) for name, ask in asks.items()}
        return BatchState(batch_id, is_over=True, completed=len(told), failed=0, total=len(told), told=told)


def ask_all(shop: Shop, folder: Path) -> list[str]:
    account = Account(provider="hosted/openai", timeout=10.0, batch=True)
    batches = Batches("ours", account, cast("Session", shop), Journal(folder), Patience(LAG, 0.02))
    told = asyncio.run(batches.ask_all(ASKS))
    return [reply.choices[0].text for reply in told if isinstance(reply, Told)]


def test_a_request_that_took_longer_than_lists_lag_is_not_repeated(tmp_path: Path) -> None:
    shop = Shop(takes=LAG + 0.05, fails=Unanswered("no reply within so many seconds"))
    assert ask_all(shop, tmp_path) == ["ONE", "TWO", "ONE"]
    assert len(shop.taken) == 1


def test_after_a_kill_the_batch_may_have_been_taken_just_now(tmp_path: Path) -> None:
    first = Shop()
    ask_all(first, tmp_path / "elsewhere")
    ((key, _),) = first.taken
    Journal(tmp_path).write(JobRecord(key, "ours", "hosted/openai", time.time() - 5.0))  # its reply may take 10 seconds
    shop = Shop(taken=[(key, time.time())], asks=first.asks)
    for _ in range(2):
        assert ask_all(shop, tmp_path) == ["ONE", "TWO", "ONE"]
        assert len(shop.taken) == 1


def test_a_refused_batch_is_not_looked_for(tmp_path: Path) -> None:
    shop = Shop(fails=Rejected("400"))
    with pytest.raises(Rejected):
        ask_all(shop, tmp_path)
    (record,) = Journal(tmp_path).records()
    assert record.heard(10.0) is None
