"""`mix:SOURCE@N`: append N rows of a safety source to the sample (safety-data mixing).

Source: Bianchi et al. 2023 (arXiv 2309.07875); Qi et al. 2023 (arXiv 2310.03693), section 5. The extra rows mean extra
optimizer steps an epoch, as there; compare cells by `optimizer_steps` as well as by `epochs`.
"""

from __future__ import annotations

from engine.domain.sweep import MixRecipe, Recipe


class Mix:
    """Safety-data mixing: `mix:standin/refusals@10`."""

    revision = 1

    def rewrite(self, recipe: Recipe, argument: str) -> Recipe:
        """Return the recipe with `data.mix` set.

        Raises:
            ValueError: When the recipe is untuned, mixes already, or the argument is not `SOURCE@N`.
        """
        source, _, count = argument.rpartition("@")
        if not source or not count.isdecimal() or int(count) < 1:
            message = f"expected `mix:SOURCE@N` with N >= 1, got `mix:{argument}`"
            raise ValueError(message)
        if recipe.data is None:
            message = "an untuned recipe has no sample to mix into"
            raise ValueError(message)
        if recipe.data.mix is not None:
            message = "the recipe mixes a second source already (`data.mix`)"
            raise ValueError(message)
        mix = MixRecipe(source=source, n=int(count))
        return recipe.model_copy(update={"data": recipe.data.model_copy(update={"mix": mix})})
