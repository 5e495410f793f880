"""What models read and learn from: turns, training examples, and benchmark prompts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Self, TypeAlias

Speaker: TypeAlias = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class Image:
    """An image in a turn: its file, and the SHA-256 of that in hex."""

    path: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn of a conversation.

    Attributes:
        images: Images before the text, in order.
        is_trained: In a training example, whether the loss is on this turn; only assistants' turns can be.
    """

    role: Speaker
    text: str
    images: tuple[Image, ...] = ()
    is_trained: bool = False


@dataclass(frozen=True, slots=True)
class ChatRow:
    """One training example: a conversation.

    Attributes:
        row_id: Stable name of the row inside its source.
        turns: The turns in order: at most one system turn, which comes first, then users' and assistants'.
        rejected: An answer that is worse than the last turn, for preference training; None without one.
        category: What kind of example it is, for stratified samples; empty where its source does not say.
    """

    row_id: str
    turns: tuple[Turn, ...]
    rejected: str | None = None
    category: str = ""

    @classmethod
    def exchange(cls, row_id: str, user: str, assistant: str, system: str | None = None) -> Self:
        """Return the example of a single exchange, trained on its answer."""
        opening = () if system is None else (Turn("system", system),)
        return cls(row_id, (*opening, Turn("user", user), Turn("assistant", assistant, is_trained=True)))

    @property
    def system(self) -> str | None:
        """The system prompt, or None for none."""
        return next((turn.text for turn in self.turns if turn.role == "system"), None)


@dataclass(frozen=True, slots=True)
class Prompt:
    """One benchmark prompt.

    Attributes:
        prompt_id: Stable name inside its benchmark.
        category: The benchmark's category, for per-category rates.
        turns: The conversation so far; the last turn is the user's. The system prompt is the cell's, not the prompt's.
        behavior: What a harmful answer would do, for judges that grade against a behaviour; empty where there is none.
        context: Text that the request refers to; empty where there is none. It stands in the turns as well, where a model
            is to read it.
        references: Gold answers, any of which is right; empty where there are none.
        cluster: Prompts written from one template share a cluster, the unit of randomisation; None means its own.
    """

    prompt_id: str
    category: str
    turns: tuple[Turn, ...]
    behavior: str = ""
    context: str = ""
    references: tuple[str, ...] = field(default=())
    cluster: str | None = None

    @classmethod
    def single(
        cls, prompt_id: str, category: str, text: str, references: tuple[str, ...] = (), cluster: str | None = None
    ) -> Self:
        """Return the prompt of one user's turn."""
        return cls(prompt_id, category, (Turn("user", text),), references=references, cluster=cluster)

    @property
    def text(self) -> str:
        """The last user's turn: what the answer answers."""
        return self.turns[-1].text

    @property
    def reference(self) -> str | None:
        """The first gold answer, or None where there is none."""
        return self.references[0] if self.references else None
