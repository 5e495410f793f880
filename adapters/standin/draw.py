"""A seeded random source that gives the same values on every supported Python.

The standard library promises stability for `random.Random.random` alone, not for `choice`,
`sample` or `shuffle`. Pools and benchmarks are pinned by content hash, so everything here is
built on that one method.
"""

import random
from collections.abc import Sequence
from typing import TypeVar

Option = TypeVar("Option")


class Draw:
    """A stream of seeded choices.

    >>> Draw("example").choose("abc") == Draw("example").choose("abc")
    True
    """

    __slots__ = ("_source",)

    def __init__(self, seed: str) -> None:
        """Start the stream.

        Args:
            seed: Any text; two streams with the same text make the same choices.
        """
        self._source = random.Random(seed)  # noqa: S311 - reproducible on purpose, not a secret

    def chance(self) -> float:
        """Return a number in [0, 1)."""
        return self._source.random()

    def below(self, bound: int) -> int:
        """Return a whole number in [0, bound); `bound` is at least 1."""
        return int(self._source.random() * bound)

    def choose(self, options: Sequence[Option]) -> Option:
        """Return one of the options, each equally likely; there is at least one."""
        return options[int(self._source.random() * len(options))]

    def choose_weighted(self, weights: dict[Option, float]) -> Option:
        """Return one key, with probability proportional to its weight.

        Args:
            weights: A weight above 0 for each option; they need not sum to 1.
        """
        mark = self._source.random() * sum(weights.values())
        for option, weight in weights.items():
            mark -= weight
            if mark < 0:
                return option
        return next(reversed(weights))

    def shuffled(self, options: Sequence[Option]) -> list[Option]:
        """Return the options in a random order (Fisher-Yates); the input is left alone."""
        order = list(options)
        for last in range(len(order) - 1, 0, -1):
            other = self.below(last + 1)
            order[last], order[other] = order[other], order[last]
        return order

    def sample(self, options: Sequence[Option], count: int) -> list[Option]:
        """Return `count` different positions of `options`, in random order.

        Args:
            options: At least `count` of them.
            count: How many, 0 or more.
        """
        order = list(options)
        for first in range(count):
            other = first + self.below(len(order) - first)
            order[first], order[other] = order[other], order[first]
        return order[:count]
