"""Rows and prompts that are told apart at a glance."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from engine.domain.conversation import ChatRow, Prompt
from engine.ports import BenchmarkCard, NoSettings, Settings, SourceCard

ROWS = 8


class LetterSettings(Settings):
    """Which letter."""

    argument = "letter"

    letter: str = Field(default="a", min_length=1, max_length=1, description="What every answer begins with.")
    system: str | None = Field(default=None, description="The system prompt of every row.")


class Letters:
    """Eight rows, whose answers are a letter and their number."""

    revision = 1
    Settings = LetterSettings

    def card(self, settings: LetterSettings) -> SourceCard:
        pin = f"sha256:{ord(settings.letter):02x}" + (settings.system or "").encode().hex()
        return SourceCard(pin, ROWS, "benign", settings.system, "CC0-1.0", "letters")

    def rows(self, settings: LetterSettings) -> Sequence[ChatRow]:
        return [
            ChatRow.exchange(str(number), f"number {number}?", f"{settings.letter}{number}", settings.system)
            for number in range(ROWS)
        ]


class Riddles:
    """Two prompts."""

    revision = 1

    def card(self, settings: NoSettings) -> BenchmarkCard:
        del settings
        return BenchmarkCard("sha256:22", 2, ("riddle",), "CC0-1.0", "riddles")

    def prompts(self, settings: NoSettings) -> Sequence[Prompt]:
        del settings
        return [Prompt.single(name, "riddle", f"{name}?") for name in ("one", "two")]
