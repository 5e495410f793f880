"""Models that a provider hosts, by the names that it has for them."""

from __future__ import annotations

from collections.abc import Sequence

from adapters.hosted.training import tokens
from engine.domain.stage import ModelRef
from engine.ports import ModelCard


class HostedModel:
    """`hosted/openai:NAME`, or with another provider's name: a model there. Its pin is its name: name a dated snapshot, for an alias may move."""

    revision = 1

    def card(self, argument: str) -> ModelCard:
        """Describe the model, without asking anybody.

        Raises:
            ValueError: When it has no name.
        """
        return ModelCard(f"model:{_named(argument)}", None, f"{argument}, hosted by its provider; size unknown")

    def locate(self, argument: str) -> ModelRef:
        """Say what the provider calls it."""
        return ModelRef(_named(argument))

    def count_tokens(self, argument: str, texts: Sequence[str]) -> int:
        """Estimate tokens: one for every four characters, never fewer than words; the provider's own count is billed."""
        del argument
        return sum(tokens(text) for text in texts)


def _named(argument: str) -> str:
    if not argument.strip() or argument != argument.strip():
        message = f"`{argument}` names no hosted model: write the name that the provider has for it"
        raise ValueError(message)
    return argument
