"""The settings of a mitigation that brings rows of its own: a data source, and how many rows of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal, Self

from pydantic import Field

from engine.domain.adapters import DataUse, Use
from engine.domain.data import ALL, DataRecipe, number
from engine.domain.sweep import Recipe
from engine.ports import Settings


class SampleSettings(Settings):
    """Which rows; written `SOURCE@N` for short."""

    argument = "source"

    source: DataUse = Field(description="Where the rows come from, such as `standin/refusals`.")
    n: Annotated[int, Field(ge=0, strict=False)] | Literal["all"] = Field(
        description="How many rows are drawn, by the sample's seed, or `all`; 0 changes nothing."
    )

    @classmethod
    def of_argument(cls, argument: str) -> dict[str, object]:
        """Read `SOURCE@N` or `SOURCE@all`."""
        source, _, count = argument.rpartition("@")
        if not source or not (count.isdecimal() or count == ALL):
            raise ValueError(f"expected `SOURCE@N`, got `{argument}`")
        return {"source": source, "n": count}

    def as_argument(self) -> str:
        """Return `SOURCE@N`."""
        return f"{self.source}@{self.n}"

    def counted(self, rows: Callable[[Use], int]) -> Self:
        """Return the settings with a number in place of `all`."""
        return self.model_copy(update={"n": number(self.n, rows(self.source))}) if self.n == ALL else self

    def drawn(self, recipe: Recipe) -> DataRecipe:
        """Return the sample; as the recipe's own rows, it has the seed `data.seed`, and may leave this machine or not.

        Raises:
            ValueError: The recipe is not tuned.
        """
        if recipe.data is None:
            raise ValueError("the recipe is not tuned: give it `data` and `tune`, or leave this mitigation out")
        own = recipe.data
        return DataRecipe(source=self.source, n=self.n, seed=own.seed, allow_upload=own.allow_upload)
