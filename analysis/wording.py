"""Numbers as people read them. Every text of the report that holds a number is made here."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

MISSING = "–"  # a dash says "none" in a table better than an empty cell

Number = int | float | Decimal
"""What a cell of a table may hold as a number."""


def percent(share: Number | None) -> str:
    """Return a share as a percentage: one decimal below 10%, none above.

    >>> percent(0.009), percent(0.98), percent(0.0), percent(None) == MISSING
    ('0.9%', '98%', '0%', True)
    """
    if share is None:
        return MISSING
    value = 100 * float(share)
    return f"{value:.0f}%" if value == 0 or value >= 9.95 else f"{value:.1f}%"  # noqa: PLR2004


def span(low: Number | None, high: Number | None) -> str:
    """Return an interval of shares.

    >>> span(0.953, 0.994)
    '95% to 99%'
    """
    return MISSING if low is None or high is None else f"{percent(low)} to {percent(high)}"


def score(value: Number | None) -> str:
    """Return a mean score on the 1-5 scale."""
    return MISSING if value is None else f"{float(value):.2f}"


def plain(value: Number | None) -> str:
    """Return a count or a learning rate: `0.0003`, `1,200`.

    >>> plain(3e-4), plain(5e-5), plain(1200)
    ('0.0003', '5e-5', '1,200')
    """
    if value is None:
        return MISSING
    return f"{value:,}" if isinstance(value, int) else f"{float(value):g}".replace("e-0", "e-")


def money(usd: Number | None) -> str:
    """Return US dollars: cents from a dollar on, two significant digits below.

    >>> money(12.5), money(0.000241), money(0.02), money(0), money(None) == MISSING
    ('$12.50', '$0.00024', '$0.02', '$0', True)
    """
    if usd is None:
        return MISSING
    value = float(usd)
    if value == 0:
        return "$0"
    return f"${value:,.2f}" if value >= 1 else f"${Decimal(f'{value:.1e}').normalize():f}"


def at_least(known: str, unpriced: Sequence[str | None]) -> str:
    """Return a sum of money, and say what is not in it as its price is unknown.

    Args:
        known: The sum of what is known, in words.
        unpriced: Accounts of providers; None for this machine.

    >>> at_least("$0.089", []), at_least("$0.089", [None])
    ('$0.089', 'at least $0.089: an hour of this machine has no price')
    >>> at_least("$0.089", [None, "lab"])
    'at least $0.089: an hour of this machine and what is bought of lab have no price'
    """
    what = ["an hour of this machine" if name is None else f"what is bought of {name}" for name in unpriced]
    verb = "has" if len(what) == 1 else "have"
    return f"at least {known}: {listed(what)} {verb} no price" if what else known


def spent(known: Decimal, unpriced: Sequence[str | None], possibly_usd: Decimal | None, possibly_tokens: int) -> str:
    """Return what was spent, as far as prices are known, and what may have been besides.

    Args:
        known: US dollars, of all that has a price.
        unpriced: What has none: accounts of providers, and None for this machine.
        possibly_usd: US dollars, at most, for requests without a reply; None when unknown.
        possibly_tokens: How many tokens of theirs may have been billed.

    >>> spent(Decimal("1.5"), [], Decimal(), 0), spent(Decimal(0), [None], Decimal(), 0)
    ('$1.50', 'unknown')
    >>> spent(Decimal("1.5"), [], Decimal("0.002"), 1000)
    '$1.50, and up to $0.002 more for 1,000 tokens, if the provider billed replies that never came'
    """
    sure = at_least(money(known), unpriced) if known or not unpriced else "unknown"
    return f"{sure}, and {besides(possibly_usd, possibly_tokens)}" if possibly_tokens else sure


def besides(usd: Decimal | None, tokens: int) -> str:
    """Return what a provider may have billed for requests without a reply, at most."""
    most = "an unknown sum" if usd is None else money(usd)
    return f"up to {most} more for {count(tokens, 'token')}, if the provider billed replies that never came"


def duration(seconds: Number | None) -> str:
    """Return a time as people say it.

    >>> duration(0.42), duration(48), duration(200), duration(7500)
    ('0.42 s', '48 s', '3 min 20 s', '2 h 5 min')
    """
    if seconds is None:
        return MISSING
    if seconds < 10:  # noqa: PLR2004 - below, tenths matter
        return f"{float(seconds):.2g} s"
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{rest} s"
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"  # noqa: PLR2004


def count(number: int, noun: str, plural: str = "") -> str:
    """Return a number with its noun.

    >>> count(1, "seed"), count(3, "seed")
    ('1 seed', '3 seeds')
    """
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def listed(items: list[str]) -> str:
    """Return names as a phrase.

    >>> listed(["a", "b", "c"]), listed(["a"])
    ('a, b and c', 'a')
    """
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}" if items else ""
