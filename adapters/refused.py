"""Records of a user's file that are not what is read: one error for all of them, with their places."""

from __future__ import annotations

from collections.abc import Sequence

MOST_NAMED = 5
"""Places that a message names."""


def refusal(refused: Sequence[ValueError], good: int, remedy: str = "") -> ValueError:
    """Return the error that records are refused: the first one's, and how many more there are.

    Args:
        refused: Why each is, the place first: `PATH:LINE: why`, or `PATH, item 3: why`; at least one.
        good: How many records are not refused.
        remedy: What to do; it is left out where every record is refused, as then something else is wrong.
    """
    first, number = refused[0], len(refused)
    if not good:
        more = f"; none of the {number:,} records of the file can be used" if number > 1 else ""
        return ValueError(f"{first}{more}")
    more = f"; {number:,} of {number + good:,} records are refused ({places(refused)})" if number > 1 else ""
    return ValueError(f"{first}{more}{remedy}")


def places(refused: Sequence[ValueError]) -> str:
    """Return the places of records that are refused, the first few of them."""
    named = ", ".join(_place(error) for error in refused[:MOST_NAMED])
    return f"{named}, …" if len(refused) > MOST_NAMED else named


def _place(error: ValueError) -> str:
    """Return the line, or the item, that an error is about."""
    where = str(error).partition(": ")[0]
    return where.rpartition(", ")[2] if ", " in where else f"line {where.rpartition(':')[2]}"
