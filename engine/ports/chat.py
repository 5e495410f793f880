"""Chat completions, as every provider has them: the request, the reply, and the rate limits that its headers tell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from engine.domain.conversation import Turn
from engine.domain.cost import Usage


@dataclass(frozen=True, slots=True)
class RateLimit:
    """One limit, as a reply's headers tell it; None where they do not.

    Attributes:
        limit: How much a minute.
        left: How much of it is left.
        seconds: When all of it will be there again, from now.
    """

    limit: int | None = None
    left: int | None = None
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class RateLimits:
    """What a reply's headers tell of an account's limits."""

    requests: RateLimit = RateLimit()
    tokens: RateLimit = RateLimit()


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One chat completion.

    Attributes:
        model: A base model's name, or a tuned one's.
        max_tokens: Longest answer, in tokens, >= 1.
        temperature: 0 asks for the likeliest answer.
        top_p: Nucleus sampling mass, (0, 1].
        samples: Answers wanted, >= 1.
        seed: Seed of the sampling, where the provider has one; None for none.
        schema: JSON schema that the answer must follow, where the provider can; None for free text.
    """

    model: str
    turns: tuple[Turn, ...]
    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    samples: int = 1
    seed: int | None = None
    schema: Mapping[str, object] | None = None

    @property
    def characters(self) -> int:
        """Characters of all turns: what estimates of its tokens are made from."""
        return sum(len(turn.text) for turn in self.turns)


class FinishReason(StrEnum):
    """Why a hosted answer ended."""

    STOP = "stop"
    LENGTH = "length"
    FILTERED = "filtered"  # the provider's content filter withheld it
    REFUSED = "refused"  # the provider's own refusal field was set instead of an answer


@dataclass(frozen=True, slots=True)
class Choice:
    """One answer: its text, empty where there is none, why it ended, and what the model thought before, where the provider shows it."""

    text: str
    finish_reason: FinishReason
    thoughts: str = ""


MOST_TOKENS = 10**9
"""More than any one request can use."""


@dataclass(frozen=True, slots=True)
class Completion:
    """The reply to a `ChatRequest`.

    What a provider says of its tokens is not trusted: counts below 0 or above `MOST_TOKENS` are taken for these.

    Attributes:
        choices: `samples` of them.
        prompt_tokens: Tokens read, as billed; cached ones included.
        cached_tokens: Of those, how many were billed as cached.
        generated_tokens: Tokens made, of all choices, as billed.
        rate_limits: What the headers said.
        is_booked: Whether an attempt that has ended has it in the ledger: it was bought before, and is used again.
        possibly_billed: What earlier sends of the request may be billed for whose reply never came: its `possibly_billed_…_tokens`.
    """

    choices: tuple[Choice, ...]
    prompt_tokens: int
    cached_tokens: int
    generated_tokens: int
    rate_limits: RateLimits = RateLimits()
    is_booked: bool = False
    possibly_billed: Usage = field(default_factory=Usage)

    def __post_init__(self) -> None:
        """Bring the counts into range, wherever they come from: a reply, or one that was kept."""
        prompt = _within(self.prompt_tokens, MOST_TOKENS)
        object.__setattr__(self, "prompt_tokens", prompt)
        object.__setattr__(self, "cached_tokens", _within(self.cached_tokens, prompt))
        object.__setattr__(self, "generated_tokens", _within(self.generated_tokens, MOST_TOKENS))

    @property
    def usage(self) -> Usage:
        """What it adds to the ledger."""
        if self.is_booked:
            return Usage()
        read, cached, made = self.prompt_tokens, self.cached_tokens, self.generated_tokens
        return self.possibly_billed + Usage(prompt_tokens=read, cached_tokens=cached, generated_tokens=made)


def _within(count: int, most: int) -> int:
    return min(max(0, count), most)
