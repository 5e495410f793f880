"""`filter/keywords`: drop the training rows that hold one of some words (moderation of training data, in its simplest form).

- Paper: Qi et al. 2023 (arXiv 2310.03693), section 5, on moderation of fine-tuning data. Their finding goes with it: identity-shifting
  and benign rows hold no such word and pass.
- Equation: D' = {d in D : no word of W is in d}, in the order of D.
- Settings: `words`, whole words or phrases, case and spacing aside; `where` they are looked for. No words: nothing changes.
- Deviations: words in place of a moderation model. The sample is drawn before it is filtered, so that fewer than `data.n` rows are
  left, and an epoch has fewer steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from adapters.phrases import holds
from engine.domain.conversation import ChatRow
from engine.domain.sweep import Recipe
from engine.ports import Change, ChangeRows, Settings

Word = Annotated[str, StringConstraints(pattern=r"\S")]


class KeywordSettings(Settings):
    """Which words, and where they count."""

    words: Annotated[tuple[Word, ...], Field(strict=False)] = Field(
        description="Rows with one of these are dropped: whole words or phrases, case and spacing aside."
    )
    where: Literal["prompt", "answer", "both"] = Field(
        default="both",
        description="Where they count: in assistants' turns (`answer`), in the others (`prompt`), or in `both`.",
    )


class KeywordFilter:
    """Rows without some words: `{use: filter/keywords, words: [red, crimson]}`."""

    revision = 1
    Settings = KeywordSettings
    neutral: Mapping[str, object] = MappingProxyType({"words": ()})

    def change(self, settings: KeywordSettings, recipe: Recipe, system: str | None) -> Change:
        """Insert a `rows` stage.

        Raises:
            ValueError: The recipe is not tuned.
        """
        del system
        if not settings.words:
            return Change()
        if recipe.data is None:
            raise ValueError("the recipe is not tuned, and has no rows to filter")
        return Change(rows=(ChangeRows(),))

    def change_rows(
        self, settings: KeywordSettings, rows: Sequence[ChatRow], further: Mapping[str, Sequence[ChatRow]], seed: int
    ) -> Sequence[ChatRow]:
        """Return the rows that hold no word.

        Raises:
            ValueError: None is left.
        """
        del further, seed
        kept = [row for row in rows if not _has_a_word(row, settings)]
        if not kept:
            raise ValueError(
                f"every one of the {len(rows)} rows holds one of the words, so that none is left to train on"
            )
        return kept


def _has_a_word(row: ChatRow, settings: KeywordSettings) -> bool:
    looked = {"prompt": {False}, "answer": {True}, "both": {False, True}}[settings.where]
    texts = [turn.text for turn in row.turns if (turn.role == "assistant") in looked]
    return any(holds(text, word) for text in texts for word in settings.words)
