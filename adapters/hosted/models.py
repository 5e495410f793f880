"""Models that a provider hosts, by the names that it has for them."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field, field_validator

from adapters.hosted.training import tokens
from engine.domain.conversation import ChatRow, Prompt, Turn
from engine.domain.stage import ModelRef
from engine.ports import ModelCard, Settings


class HostedModelSettings(Settings):
    """Which model."""

    argument = "name"

    name: str = Field(description="The name that the provider has for it; a dated one, for an alias may move.")

    @field_validator("name")
    @classmethod
    def _names_one(cls, name: str) -> str:
        if not name.strip() or name != name.strip():
            raise ValueError(f"`{name}` names no hosted model: write the name that the provider has for it")
        return name


class HostedModel:
    """`hosted/openai:NAME`, or with another provider's name: a model there. Its pin is its name."""

    revision = 1
    Settings = HostedModelSettings

    def card(self, settings: HostedModelSettings) -> ModelCard:
        """Describe the model, without asking anybody."""
        return ModelCard(f"model:{settings.name}", None, f"{settings.name}, hosted by its provider; size unknown")

    def locate(self, settings: HostedModelSettings) -> ModelRef:
        """Say what the provider calls it."""
        return ModelRef(settings.name)

    def row_lengths(self, settings: HostedModelSettings, rows: Sequence[ChatRow]) -> list[int]:
        """Estimate tokens, template left out: one for every four characters, never fewer than words; the provider's count is billed."""
        del settings
        return [_estimated(row.turns) for row in rows]

    def prompt_lengths(self, settings: HostedModelSettings, prompts: Sequence[Prompt], system: str | None) -> list[int]:
        """Estimate tokens in the same way."""
        del settings
        return [_estimated(prompt.turns) + (tokens(system) if system else 0) for prompt in prompts]


def _estimated(turns: Sequence[Turn]) -> int:
    return sum(tokens(turn.text) for turn in turns if turn.text)
