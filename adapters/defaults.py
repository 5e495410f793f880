"""The adapters that stand in a recipe where the spec names none: the entry points `dosimeter.defaults`, by path of the recipe.

`init.judge` is no path: it is the judge of harm that `dosimeter init` begins with.
"""

TUNER = "local/sft"
GENERATOR = "local/transformers"
UTILITY_JUDGE = "answer/contains"
OVER_REFUSAL_JUDGE = "refusal/keywords"
FIRST_JUDGE = "harm/phrases"
