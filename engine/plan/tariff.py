"""What stages cost: hosted ones by their provider's dated prices, all others by the hour of their device."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import cache, partial
from pathlib import Path

from engine import registry
from engine.domain.adapters import Kind
from engine.domain.cost import Charge, Usage, device_usd
from engine.domain.price import PriceUnit, Quote, charge
from engine.domain.stage import Stage, StageKind
from engine.domain.sweep import RunSettings
from engine.plan.accounts import hosted_model
from engine.plan.prices import PriceTable, load_prices

UNITS: Mapping[StageKind, tuple[PriceUnit, ...]] = {
    StageKind.TUNE: (PriceUnit.TRAIN_MTOK,),
    StageKind.GENERATE: (PriceUnit.IN_MTOK, PriceUnit.OUT_MTOK),
    StageKind.JUDGE: (PriceUnit.IN_MTOK, PriceUnit.OUT_MTOK),
}
"""The prices that a kind of stage needs."""


@dataclass(frozen=True, slots=True)
class Tariff:
    """The price of every stage.

    Attributes:
        device: US dollars for an hour of a device here; None when nobody said.
        hosted: By hosted stage key, the provider's prices; None where they are unknown.
        batched: Keys of the stages that are asked in batches.
    """

    device: Decimal | None
    hosted: Mapping[str, Quote | None]
    batched: frozenset[str] = frozenset()

    @property
    def is_known(self) -> bool:
        """Whether any price is known."""
        return self.device is not None or any(quote is not None for quote in self.hosted.values())

    def price(self, key: str) -> object:
        """Return what stages of one price have in common."""
        return (id(self.hosted[key]), key in self.batched) if key in self.hosted else None

    def charge(self, key: str, usage: Usage) -> Charge:
        """Return what a stage costs that used so much, and what it costs besides, at most, where replies never came."""
        possibly_billed = usage.possibly_billed
        return Charge(self._usd(key, usage), self._usd(key, possibly_billed) if possibly_billed.tokens else Decimal())

    def _usd(self, key: str, usage: Usage) -> Decimal | None:
        if key not in self.hosted:
            return None if self.device is None else device_usd(usage, self.device)
        return charge(usage, self.hosted[key], is_batch=key in self.batched)


@dataclass(frozen=True, slots=True)
class Bought:
    """What is bought of a provider: a model, for a kind of stage.

    Attributes:
        model: The model's name there; of a tuned one its base's, because it has none before it is there.
        is_tuned: Whether it is a tuned one.
    """

    provider: str
    model: str
    kind: StageKind
    is_tuned: bool = False

    @property
    def priced_as(self) -> str:
        """The name by which its price is found; of a tuned model, how that name begins."""
        return registry.adapter(Kind.PROVIDER, self.provider).tuned_prefix(self.model) if self.is_tuned else self.model

    def is_called(self, model: str) -> bool:
        """Tell whether a model that was asked may be this one, by its name."""
        return model.startswith(self.priced_as) if self.is_tuned else model == self.model


def bought(stage: Stage) -> Bought:
    """Return what a hosted stage buys.

    Raises:
        ValueError: The stage runs here.
    """
    asked = hosted_model(stage)
    if asked is None:
        raise ValueError(f"{stage.key} buys nothing of a provider")
    is_tuned = stage.kind is StageKind.GENERATE and stage.need("model") is not None
    return Bought(asked.name, asked.argument, stage.kind, is_tuned)


def tariff(
    stages: Mapping[str, Stage], accounts: Mapping[str, str], settings: RunSettings, on: date, table: PriceTable
) -> Tariff:
    """Return the price of every stage of a plan."""
    quote = cache(partial(table.quote, on=on))  # stages of one price share one object
    buying = {key: bought(stages[key]) for key in accounts}
    hosted = {key: quote(what.provider, what.priced_as) for key, what in buying.items()}
    batching = {name for name, account in settings.accounts.items() if account.batch}
    asked = (key for key, account in accounts.items() if account in batching)
    usd_per_hour = settings.resources.usd_per_device_hour
    return Tariff(usd_per_hour, hosted, frozenset(key for key in asked if stages[key].kind is not StageKind.TUNE))


def purchases(stages: Mapping[str, Stage], accounts: Mapping[str, str]) -> Iterator[Bought]:
    """Yield each thing that a plan buys of providers, once."""
    yield from dict.fromkeys(bought(stages[key]) for key in accounts)


def prices_of(settings: RunSettings) -> PriceTable:
    """Return the price table that a run uses: the user's own file first.

    Raises:
        OSError: The file cannot be read.
        SpecError: Something in it is wrong.
    """
    return load_prices(None if settings.prices is None else Path(settings.prices))


def today() -> date:
    """Return the day, UTC."""
    return datetime.now(UTC).date()
