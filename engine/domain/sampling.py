"""Which rows a sample has, and which prompts a part of a benchmark."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from heapq import heappop, heappush
from typing import NamedTuple

from engine.domain.conversation import ChatRow


class Draw(NamedTuple):
    """How rows are drawn from a source.

    Attributes:
        n: How many, at most as many as there are.
        seed: Of the permutation.
        is_stratified: Whether categories are in the proportions of the source.
    """

    n: int
    seed: int
    is_stratified: bool = False


def drawn(rows: Sequence[ChatRow], draw: Draw) -> list[ChatRow]:
    """Return the first n of one seeded permutation, so that 10 examples are a part of the 50, and those of the 100.

    Args:
        rows: Those of a source, in its order.
        draw: How many, and how.
    """
    permuted = random.Random(draw.seed).sample(rows, len(rows))  # noqa: S311 - no secret
    if draw.is_stratified:
        permuted = [permuted[place] for place in in_proportion([row.category for row in permuted])]
    return permuted[: draw.n]


def in_proportion(categories: Sequence[str]) -> list[int]:
    """Return an order of items, by their places, of which every beginning has the categories in the proportions of the whole.

    Of the first k items, each category has its exact share of k, rounded down or up. Items of one category keep their order.

    This is the quota rule with house monotonicity (Balinski and Young 1975), as a schedule (Steiner and Yeomans 1993): of N
    items, the j-th of d in a category comes after place floor((j-1)N/d) and at place ceil(jN/d) at the latest; of those that
    may come, the one that has to come first does.

    Args:
        categories: That of each item.

    >>> in_proportion(["a", "a", "a", "a", "b", "b"])
    [0, 1, 4, 2, 3, 5]
    """
    sizes, seen, all_of_them = Counter(categories), Counter[str](), len(categories)
    windows = []
    for place, category in enumerate(categories):
        before, size = seen[category], sizes[category]
        windows.append((before * all_of_them // size, -(-(before + 1) * all_of_them // size), place))
        seen[category] += 1
    windows.sort(reverse=True)
    order: list[int] = []
    open_now: list[tuple[int, int]] = []
    while len(order) < all_of_them:
        while windows and windows[-1][0] <= len(order):
            _, latest, place = windows.pop()
            heappush(open_now, (latest, place))
        order.append(heappop(open_now)[1])
    return order
