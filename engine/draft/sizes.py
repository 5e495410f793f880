"""How many rows to tune on: sizes that exist."""

from __future__ import annotations

USUAL = (10, 50, 100)
"""Qi et al. 2023 (arXiv 2310.03693) tune on 10, 50 and 100 explicit examples."""

APART = 1.5
"""Two sizes are at least so many times apart."""


def sizes(rows: int) -> tuple[int, ...]:
    """Return the sizes to begin with, where there are so many rows: of the usual ones those that exist, and all where these are few.

    >>> sizes(1000), sizes(60), sizes(37), sizes(12), sizes(1)
    ((10, 50, 100), (10, 60), (10, 37), (12,), (1,))
    """
    most = min(rows, max(USUAL))
    return (*(one for one in USUAL if one * APART <= most), most)
