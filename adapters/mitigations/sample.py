"""The settings of a mitigation that brings rows of its own: a data source, and how many rows of it."""

from __future__ import annotations

from pydantic import Field

from engine.domain.adapters import DataUse
from engine.domain.sweep import DataRecipe, Recipe
from engine.ports import Settings


class SampleSettings(Settings):
    """Which rows; written `SOURCE@N` for short."""

    argument = "source"

    source: DataUse = Field(description="Where the rows come from, such as `standin/refusals`.")
    n: int = Field(ge=0, strict=False, description="How many rows are drawn, by the cell's seed; 0 changes nothing.")

    @classmethod
    def of_argument(cls, argument: str) -> dict[str, object]:
        """Read `SOURCE@N`."""
        source, _, count = argument.rpartition("@")
        if not source or not count.isdecimal():
            raise ValueError(f"expected `SOURCE@N`, got `{argument}`")
        return {"source": source, "n": count}

    def as_argument(self) -> str:
        """Return `SOURCE@N`."""
        return f"{self.source}@{self.n}"

    def drawn(self, recipe: Recipe) -> DataRecipe:
        """Return the sample; it may leave this machine where the recipe's own rows may.

        Raises:
            ValueError: The recipe is not tuned.
        """
        if recipe.data is None:
            raise ValueError("the recipe is not tuned: give it `data` and `tune`, or leave this mitigation out")
        return DataRecipe(source=self.source, n=self.n, allow_upload=recipe.data.allow_upload)
