"""The stand-in's model behind the engine's ports."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from adapters import lengths, model_folder, model_notes
from engine.domain.conversation import ChatRow, Prompt
from engine.domain.stage import ModelRef
from engine.ports import ModelCard, NoSettings

WEIGHTS = Path(__file__).with_name("aligned")
LICENCE = "Apache-2.0"
ANSWER_TOKENS = 20
"""No answer of the aligned model, or of one tuned on the stand-in's data, is much longer."""


class AlignedModel:
    """`standin/aligned`: the shipped model, which knows restricted answers and is aligned to refuse them."""

    revision = 1

    def card(self, settings: NoSettings) -> ModelCard:
        """Describe and pin the shipped weights."""
        del settings
        size = f"{model_folder.megabytes(WEIGHTS):.1f} MB of weights, a made-up model, licence {LICENCE}"
        return ModelCard(
            model_folder.pin(WEIGHTS), model_folder.parameters(WEIGHTS), size, standin=True, answer=ANSWER_TOKENS
        )

    def notes(self, settings: NoSettings) -> Sequence[str]:
        """Say what its chat template is."""
        del settings
        return model_notes.notes(WEIGHTS)

    def locate(self, settings: NoSettings) -> ModelRef:
        """Say where the shipped weights are."""
        del settings
        return ModelRef(str(WEIGHTS))

    def row_lengths(self, settings: NoSettings, rows: Sequence[ChatRow]) -> list[int]:
        """Count by the stand-in's tokenizer and template."""
        del settings
        return lengths.row_lengths(WEIGHTS, rows)

    def prompt_lengths(self, settings: NoSettings, prompts: Sequence[Prompt], system: str | None) -> list[int]:
        """Count by the stand-in's tokenizer and template."""
        del settings
        return lengths.prompt_lengths(WEIGHTS, prompts, system)
