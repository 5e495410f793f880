"""The adapters that stand in a recipe where the spec names none: the entry points `dosimeter.defaults`, by path of the recipe."""

TUNER = "local/sft"
GENERATOR = "local/transformers"
UTILITY_JUDGE = "answer/contains"
OVER_REFUSAL_JUDGE = "refusal/keywords"
