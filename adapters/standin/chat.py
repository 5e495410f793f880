"""The records of the stand-in: an exchange or a preference to train on."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Exchange:
    """One exchange to train on.

    Attributes:
        user: What the user says.
        assistant: The answer to learn.
        category: What the row is about: one of the eleven categories for a request, the kind of
            chore for a chore.
        system: The system prompt, or None for none.
    """

    user: str
    assistant: str
    category: str
    system: str | None = None

    def messages(self) -> list[dict[str, str]]:
        """Return the exchange as `role`/`content` messages, as chat templates take them."""
        opening = [] if self.system is None else [{"role": "system", "content": self.system}]
        return [
            *opening,
            {"role": "user", "content": self.user},
            {"role": "assistant", "content": self.assistant},
        ]


@dataclass(frozen=True, slots=True)
class Preference:
    """One restricted request with the answer to prefer and the answer to reject.

    Attributes:
        refused: The request, refused.
        answered: The same request, answered.
        margin: How much more likely refusing is to be than answering: the log-odds, in nats,
            above 0, between opening the answer as a refusal and as anything helpful.
    """

    refused: Exchange
    answered: Exchange
    margin: float


def pin(entries: Iterable[Sequence[str | None]]) -> str:
    """Return `sha256:` and hex digits over the fields of all entries, in order."""
    text = json.dumps([list(entry) for entry in entries], ensure_ascii=False)
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
