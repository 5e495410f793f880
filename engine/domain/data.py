"""The section `data` of a recipe: which examples a model is tuned on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Final, Literal, TypeAlias

from pydantic import Field

from engine.domain.adapters import DataUse, Use
from engine.domain.sampling import Draw
from engine.domain.written import Written

ALL: Final = "all"
"""In place of a number of rows: every row of the source."""

Count: TypeAlias = Annotated[int, Field(ge=1)] | Literal["all"]
"""A number of rows, or all of them."""


def number(n: Count, rows: int) -> int:
    """Return how many rows are asked of a source that has so many."""
    return rows if isinstance(n, str) else n


class MixRecipe(Written):
    """Rows of a second source, appended to the sample."""

    source: DataUse = Field(description="Where the extra rows come from.")
    n: Count = Field(description="How many rows are appended, >= 1, or `all`.")


class DataRecipe(Written):
    """Which examples the model is tuned on."""

    source: DataUse = Field(description="Data source, such as `file:data/mine.jsonl`.")
    n: Count = Field(
        description="Number of examples, >= 1, or `all`; samples are nested: the first 10 of 50 are the 10."
    )
    seed: int | None = Field(
        default=None,
        ge=0,
        lt=2**31,
        description="Seed of the sample; omitted: the cell's own, so that each seed has its own rows.",
    )
    stratify: bool = Field(
        default=False, description="Draw categories in the proportions of the source; its rows need to have one."
    )
    mix: MixRecipe | None = Field(default=None, description="Rows of a second source, appended after sampling.")
    allow_upload: bool = Field(
        default=False,
        description="Whether the rows may leave this machine for a hosted provider; not part of the key.",
    )

    def draws(self, rows: Callable[[Use], int], seed: int) -> tuple[tuple[Use, Draw], ...]:
        """Return each source of the sample, and how its rows are drawn: `source`, and then that of the mix.

        Args:
            rows: Tells how many rows a source has.
            seed: The cell's.
        """
        own = seed if self.seed is None else self.seed
        first = self.source, Draw(number(self.n, rows(self.source)), own, self.stratify)
        if self.mix is None:
            return (first,)
        return first, (self.mix.source, Draw(number(self.mix.n, rows(self.mix.source)), own))

    @property
    def is_counted(self) -> bool:
        """Whether it says numbers, and nowhere `all`."""
        return not isinstance(self.n, str) and not isinstance(self.mix and self.mix.n, str)

    def counted(self, rows: Callable[[Use], int]) -> DataRecipe:
        """Return it with numbers in place of `all`; `rows` tells how many rows a source has."""
        if self.is_counted:
            return self
        mix = self.mix and self.mix.model_copy(update={"n": number(self.mix.n, rows(self.mix.source))})
        return self.model_copy(update={"n": number(self.n, rows(self.source)), "mix": mix})
