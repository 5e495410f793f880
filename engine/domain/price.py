"""What a provider asks for its work: dated price rows, and the charge for a usage. Exact Decimal US dollars.

An unknown price is None, never 0. Nothing is rounded here: a person's display rounds.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from enum import StrEnum
from fnmatch import fnmatchcase

from engine.domain.cost import Usage, device_usd


class PriceUnit(StrEnum):
    """What a price is for: a million tokens of a kind, or an hour."""

    TRAIN_MTOK = "train_mtok"  # tokens trained on, every epoch counted
    IN_MTOK = "in_mtok"  # tokens read as prompts
    CACHED_IN_MTOK = "cached_in_mtok"  # those of them that the provider still had
    OUT_MTOK = "out_mtok"  # tokens generated
    BATCH_IN_MTOK = "batch_in_mtok"  # read, in a batch that may take a day
    BATCH_OUT_MTOK = "batch_out_mtok"  # generated, in such a batch
    DEVICE_HOUR = "device_hour"  # an hour in which a stage holds a rented device
    HOST_HOUR = "host_hour"  # an hour in which a tuned model stays deployed, used or not


@dataclass(frozen=True, slots=True)
class PriceRow:
    """One price, for some models of one provider and some days.

    Attributes:
        model: A model's name; `*` in it stands for any text.
        usd: US dollars for one unit, >= 0.
        effective_from: First day on which it holds.
        effective_until: Last day on which it holds; None for no end.
        available_until: Last day on which the provider offers this at all; None when no end is announced.
        source: Where the figure was read.
        checked_on: When it was last read.
        is_secondary: Whether that was somebody's copy rather than the vendor's own page.
        notice: What a user must know before counting on it; empty for nothing.
    """

    provider: str
    model: str
    unit: PriceUnit
    usd: Decimal
    effective_from: date
    effective_until: date | None
    available_until: date | None
    source: str
    checked_on: date
    is_secondary: bool = False
    notice: str = ""

    def holds(self, provider: str, model: str, on: date) -> bool:
        """Tell whether this is a price of the model on that day."""
        starts, ends = self.effective_from, self.effective_until
        is_day = starts <= on and (ends is None or on <= ends)
        return is_day and provider == self.provider and fnmatchcase(model, self.model)

    @property
    def rank(self) -> tuple[bool, int, date, str]:
        """What the row to use has most of: an exact name, then the longer pattern, then the later date."""
        return "*" not in self.model, len(self.model) - self.model.count("*"), self.effective_from, self.model


@dataclass(frozen=True, slots=True)
class Quote:
    """The prices of one model on one day: at most one row per unit, and never none."""

    rows: tuple[PriceRow, ...]

    def usd(self, unit: PriceUnit) -> Decimal | None:
        """Return US dollars for one unit, or None when it has no price."""
        return next((row.usd for row in self.rows if row.unit is unit), None)


def charge(usage: Usage, quote: Quote | None, *, is_batch: bool = False) -> Decimal | None:
    """Return the exact US dollars for what was surely used; None when anything in it has no known price.

    What is possibly billed is charged apart, as `usage.possibly_billed`. Hours of a deployed model (`host_hour`) are not in a usage and
    so never in a charge.

    Args:
        usage: What was used. Device time is charged where the quote has a `device_hour`, and is free elsewhere. Its cached
            tokens count as fresh where the quote has no price for them, and in a batch; never more than were read are cached.
        quote: The prices; None when none is known.
        is_batch: Whether it was asked as a batch.

    >>> from datetime import date
    >>> day = date(2023, 10, 5)
    >>> row = PriceRow("p", "m", PriceUnit.TRAIN_MTOK, Decimal("8"), day, None, None, "Qi et al. 2023", day)
    >>> charge(Usage(train_tokens=5_755_170), Quote((row,)))
    Decimal('46.041360')
    """
    if quote is None:
        return None
    read = PriceUnit.BATCH_IN_MTOK if is_batch else PriceUnit.IN_MTOK
    made = PriceUnit.BATCH_OUT_MTOK if is_batch else PriceUnit.OUT_MTOK
    is_fresh = is_batch or quote.usd(PriceUnit.CACHED_IN_MTOK) is None
    cached = 0 if is_fresh else min(usage.cached_tokens, usage.prompt_tokens)
    parts = [
        _tokens(usage.train_tokens, quote.usd(PriceUnit.TRAIN_MTOK)),
        _tokens(usage.prompt_tokens - cached, quote.usd(read)),
        _tokens(cached, quote.usd(PriceUnit.CACHED_IN_MTOK)),
        _tokens(usage.generated_tokens, quote.usd(made)),
    ]
    known = [usd for usd in parts if usd is not None]
    held = device_usd(usage, quote.usd(PriceUnit.DEVICE_HOUR) or Decimal())
    return sum(known, held) if len(known) == len(parts) else None


def _tokens(count: int, usd: Decimal | None) -> Decimal | None:
    """Return the dollars for so many tokens at a price a million; nothing costs nothing, whatever its price."""
    if count == 0:
        return Decimal()
    return None if usd is None else (count * usd).scaleb(-6)
