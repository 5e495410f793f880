"""What work uses, and what that costs. Money is Decimal US dollars, never float."""

from __future__ import annotations

from dataclasses import dataclass, fields
from decimal import Decimal

SECONDS_PER_HOUR = Decimal(3600)


@dataclass(frozen=True, slots=True)
class Usage:
    """What one attempt at a stage used; sums add field by field.

    Attributes:
        optimizer_steps: Optimizer updates, >= 0.
        train_tokens: Tokens seen in training, all epochs, prompt and answer, without padding; >= 0.
        prompt_tokens: Tokens read as prompts when generating, without padding; >= 0.
        generated_tokens: Tokens generated, the end token included; >= 0.
        cached_tokens: Of the prompt tokens, those that a provider still had, and bills as cached; >= 0.
        possibly_billed_prompt_tokens: Tokens read, at most, for requests to a provider whose reply never came. They may be billed,
            or not; they are in no other count. >= 0.
        possibly_billed_generated_tokens: Tokens generated for them, at most; >= 0.
        device_seconds: Wall seconds that the stage held its device (a GPU, or one CPU host); >= 0.
    """

    optimizer_steps: int = 0
    train_tokens: int = 0
    prompt_tokens: int = 0
    generated_tokens: int = 0
    cached_tokens: int = 0
    possibly_billed_prompt_tokens: int = 0
    possibly_billed_generated_tokens: int = 0
    device_seconds: float = 0.0

    def __add__(self, other: Usage) -> Usage:
        """Add two usages, field by field."""
        return Usage(**{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(Usage)})

    def __sub__(self, other: Usage) -> Usage:
        """Return what is in this usage beyond the other; never less than nothing."""
        return Usage(**{f.name: max(0, getattr(self, f.name) - getattr(other, f.name)) for f in fields(Usage)})

    def scaled(self, factor: float) -> Usage:
        """Return this usage times `factor`, counts rounded to the nearest integer."""
        counts = {f.name: round(getattr(self, f.name) * factor) for f in fields(Usage) if f.name != "device_seconds"}
        return Usage(**counts, device_seconds=self.device_seconds * factor)

    @property
    def possibly_billed(self) -> Usage:
        """What a provider may have done besides, at most, as if it had."""
        return Usage(
            prompt_tokens=self.possibly_billed_prompt_tokens, generated_tokens=self.possibly_billed_generated_tokens
        )

    @property
    def tokens(self) -> int:
        """All tokens: trained, read and generated; what is possibly billed is left out."""
        return self.train_tokens + self.prompt_tokens + self.generated_tokens


@dataclass(frozen=True, slots=True)
class Range:
    """A usage forecast: low, expected and high."""

    low: Usage
    expected: Usage
    high: Usage

    def __add__(self, other: Range) -> Range:
        """Add two ranges, end by end."""
        return Range(self.low + other.low, self.expected + other.expected, self.high + other.high)

    def __sub__(self, other: Range) -> Range:
        """Subtract a range, end by end; never to less than nothing."""
        return Range(self.low - other.low, self.expected - other.expected, self.high - other.high)

    def scaled(self, factor: float) -> Range:
        """Return this range times `factor`."""
        return Range(self.low.scaled(factor), self.expected.scaled(factor), self.high.scaled(factor))


@dataclass(frozen=True, slots=True)
class Prediction(Range):
    """A forecast that says what its seconds rest on. Sums of forecasts are ranges and no more.

    Attributes:
        startup: Seconds that a worker takes once before its first such stage: to load libraries and the base model. >= 0.
        basis: What the seconds rest on, in words; empty when nothing is to be said.
    """

    startup: float = 0.0
    basis: str = ""


@dataclass(frozen=True, slots=True)
class Charge:
    """What a usage costs, in US dollars.

    Attributes:
        usd: For what was surely used; None when no price is known.
        possibly_billed_usd: For what a provider may have done besides, at most: 0 where there is no such thing, None when there is and
            no price is known. It is in no other sum.
    """

    usd: Decimal | None
    possibly_billed_usd: Decimal | None = Decimal()

    @property
    def most(self) -> Decimal:
        """What may have been billed in all, as far as prices are known."""
        return (self.usd or Decimal()) + (self.possibly_billed_usd or Decimal())


def device_usd(usage: Usage, usd_per_hour: Decimal) -> Decimal:
    """Return the exact US dollars for the device time of `usage`."""
    return Decimal(repr(usage.device_seconds)) * usd_per_hour / SECONDS_PER_HOUR
