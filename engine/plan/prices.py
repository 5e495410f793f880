"""The price table: dated rows that providers bring, and a file of the user's before them. The day is always an argument.

Prices are data with a source and a date on which somebody read it. Nothing here fetches one: a page that was read wrongly
by a program is worse than an old figure that says how old it is.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cache
from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator, model_validator

from engine import registry
from engine.domain.adapters import AdapterRef, Kind
from engine.domain.errors import PlanError
from engine.domain.price import PriceRow, PriceUnit, Quote
from engine.domain.sweep import Usd
from engine.domain.written import Written
from engine.spec.positions import Positions, Problems
from engine.spec.written import read_written

STALE = timedelta(days=30)
"""A price that was read longer ago than this is warned of."""

CLOSING = timedelta(days=60)
"""An end that is nearer than this is warned of."""

Day = Annotated[date, Field(strict=False)]
Dollars = Annotated[Usd, Field(max_digits=12, decimal_places=6)]
Unit = Annotated[PriceUnit, Field(strict=False)]


class PriceEntry(Written):
    """What a person writes of the prices of some models: one row for each model and unit."""

    provider: AdapterRef = Field(description="The provider's adapter.")
    models: Annotated[tuple[str, ...], Field(strict=False, min_length=1)] = Field(
        description="Names of models, each once; `*` stands for any text."
    )
    usd: dict[Unit, Dollars | None] = Field(description="US dollars by unit, in quotes: `{train_mtok: '3.00'}`.")
    effective_from: Day = Field(description="First day on which the prices hold, as YYYY-MM-DD.")
    effective_until: Day | None = Field(default=None, description="Last day on which they hold.")
    available_until: Day | None = Field(default=None, description="Last day on which this is offered at all.")
    source: str = Field(min_length=1, description="Where the prices were read.")
    checked_on: Day = Field(description="When they were last read.")
    secondary: bool = Field(default=False, description="Whether the source is a copy and not the vendor.")
    notice: str = Field(default="", description="What a user must know before counting on it.")

    @field_validator("models")
    @classmethod
    def _are_names(cls, models: tuple[str, ...]) -> tuple[str, ...]:
        odd = [model for model in models if not re.fullmatch(r"[^\s?\[\]]+", model)]
        if odd or len(set(models)) < len(models):
            raise ValueError(
                f"names of models have no space, `?` or bracket, and stand here once (got {', '.join(odd or models)})"
            )
        return models

    @model_validator(mode="after")
    def _ends_after_it_begins(self) -> PriceEntry:
        if self.effective_until is not None and self.effective_until < self.effective_from:
            raise ValueError("`effective_until` is before `effective_from`")
        return self

    def rows(self) -> Iterator[PriceRow]:
        """Yield its rows."""
        days = self.effective_from, self.effective_until, self.available_until
        for model in self.models:
            for unit, usd in self.usd.items():
                if usd is None:
                    continue
                yield PriceRow(
                    self.provider, model, unit, usd, *days, self.source, self.checked_on, self.secondary, self.notice
                )


@dataclass(frozen=True, slots=True)
class PriceTable:
    """All known prices.

    Attributes:
        layers: Rows of the user's file, if there is one, then those of the installed providers: a layer that has a price goes before the next.
    """

    layers: tuple[tuple[PriceRow, ...], ...]

    def quote(self, provider: str, model: str, on: date) -> Quote | None:
        """Return the prices of a model on a day, or None when none is known.

        For each unit, the first layer that has a row for the day gives it: an exact name goes before a pattern, a longer
        pattern before a shorter one, and then the later `effective_from`.
        """
        found: dict[PriceUnit, PriceRow] = {}
        for layer in self.layers:
            best: dict[PriceUnit, PriceRow] = {}
            for row in layer:
                if row.holds(provider, model, on) and (row.unit not in best or row.rank > best[row.unit].rank):
                    best[row.unit] = row
            found = best | found
        return Quote(tuple(found[unit] for unit in PriceUnit if unit in found)) if found else None

    def reservations(
        self, provider: str, model: str, on: date, units: Collection[PriceUnit] = tuple(PriceUnit)
    ) -> list[str]:
        """Return what somebody must know who buys on a day, a sentence each.

        That is: that there is no price, notices, an end that is near, prices read more than 30 days before the day, and copies.

        Args:
            provider: The provider's adapter.
            model: The model.
            on: The day.
            units: What is bought: `{TRAIN_MTOK}` to fine-tune it, `{IN_MTOK, OUT_MTOK}` to ask it; all that it has by default.
                Training often ends before asking does.

        Raises:
            PlanError: It is not offered any more.
        """
        quote = self.quote(provider, model, on)
        everything = quote.rows if quote is not None else ()
        rows = [row for row in everything if row.unit in units]
        ended = [row for row in rows if row.available_until is not None and row.available_until < on]
        if ended:
            what = "; ".join(dict.fromkeys(_ended(row, model) for row in ended))
            raise PlanError(what, where=f"{provider}:{model}", todo="choose another model or provider")
        unknown = [] if rows else [f"no price is known of `{model}` at {provider}, nor whether it is offered"]
        terms = dict.fromkeys(text for row in rows for text in (row.notice, _ends_soon(row, model, on)) if text)
        who = f"prices of `{model}` at {provider}"
        old = [f"{who} were last checked on {row.checked_on}" for row in everything if on - row.checked_on > STALE]
        copied = [f"{who} are from a secondary source: {row.source}" for row in everything if row.is_secondary]
        return list(dict.fromkeys([*unknown, *(["; ".join(terms)] if terms else ()), *old, *copied]))


def load_prices(path: Path | None = None) -> PriceTable:
    """Return the price table.

    Args:
        path: A file of the user's, whose rows go before those of the providers; None for these alone.

    Raises:
        OSError: The file cannot be read.
        SpecError: Something in it is wrong; every problem with its line.
    """
    if path is None:
        return PriceTable((_shipped(),))
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "not a regular file", str(path))  # a pipe or a device may have no end
    return PriceTable((read_prices(path.read_bytes(), str(path)), _shipped()))


@cache
def _shipped() -> tuple[PriceRow, ...]:
    """Return the rows that the installed providers bring."""
    files = ((name, registry.adapter(Kind.PROVIDER, name).prices()) for name in registry.names(Kind.PROVIDER))
    return tuple(row for name, raw in files if raw for row in read_prices(raw, f"prices of {name}"))


class PriceFile(Written):
    """A file of prices."""

    prices: Annotated[tuple[PriceEntry, ...], Field(strict=False)] = Field(description="a list of prices")


def read_prices(raw: bytes, name: str) -> tuple[PriceRow, ...]:
    """Validate the bytes of a price file.

    Raises:
        SpecError: Something is wrong.
    """
    file, positions = read_written(PriceFile, raw, name, expected="a mapping with the list `prices`")
    problems = Problems()
    _refuse_twice(file.prices, positions, problems)
    problems.stop_if_any()
    return tuple(row for entry in file.prices for row in entry.rows())


def _refuse_twice(entries: Sequence[PriceEntry], positions: Positions, problems: Problems) -> None:
    """Refuse a second price for one thing from one day on: neither is the later."""
    first: dict[tuple[str, str, PriceUnit, date], int] = {}
    for index, entry in enumerate(entries):
        for row in entry.rows():
            before = first.setdefault((row.provider, row.model, row.unit, row.effective_from), index)
            if before != index:
                what = f"{row.unit.value} of `{row.model}` from {row.effective_from} on is already at prices[{before}]"
                hint = "remove one of the two, or give the later one its own `effective_from`"
                problems.add(positions.problem(f"prices[{index}]", what, code="duplicate_price", hint=hint))


def _ended(row: PriceRow, model: str) -> str:
    return f"`{model}` cannot be {_done(row)} at {row.provider} any more: {row.available_until} was the last day ({row.source})"


def _ends_soon(row: PriceRow, model: str, on: date) -> str:
    if row.available_until is None or row.available_until - on > CLOSING:
        return ""
    return f"`{model}` can be {_done(row)} at {row.provider} until {row.available_until}, and not after"


def _done(row: PriceRow) -> str:
    return "fine-tuned" if row.unit is PriceUnit.TRAIN_MTOK else "used"
