"""Models that a provider hosts, by the names that it has for them."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field, field_validator

from adapters.hosted.training import tokens
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

    def count_tokens(self, settings: HostedModelSettings, texts: Sequence[str]) -> int:
        """Estimate tokens: one for every four characters, never fewer than words; the provider's own count is billed."""
        del settings
        return sum(tokens(text) for text in texts)
