"""Which rows a sample has."""

from __future__ import annotations

import random
from collections.abc import Sequence


def drawn(row_ids: Sequence[str], n: int, seed: int) -> list[str]:
    """Return the first n of one seeded permutation, so that 10 examples are a part of the 50, and those of the 100.

    Args:
        row_ids: Those of a source, in its order.
        n: How many, at most as many as there are.
        seed: The cell's.
    """
    return random.Random(seed).sample(row_ids, len(row_ids))[:n]  # noqa: S311 - no secret
