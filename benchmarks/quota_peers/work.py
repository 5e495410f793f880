"""The calls that every way makes: generations and judgements of a made-up world, their lengths as skewed as real ones."""

from __future__ import annotations

import random
from dataclasses import dataclass

from engine.domain.conversation import Turn
from engine.ports.chat import ChatRequest

MODEL = "standin-echo"
WORDS = [
    "vault",
    "potion",
    "seed",
    "lantern",
    "river",
    "orchard",
    "compass",
    "kettle",
    "ladder",
    "mirror",
    "basket",
    "feather",
]
JUDGED = 0.4
"""Share of the calls that are judgements: long prompts, short answers."""

CELL = 50
"""Calls of one cell's stage."""

LONGEST_ANSWER = 256


@dataclass(frozen=True, slots=True)
class Call:
    """One call, and whose it is."""

    request: ChatRequest
    flow: str
    urgent: bool

    @property
    def tokens(self) -> int:
        """What the server counts it as."""
        return max(self.request.max_tokens, -(-self.request.characters // 4))


def calls(number: int, seed: int = 0) -> list[Call]:
    """Return the calls, in the order in which a sweep would have them."""
    draw = random.Random(seed)  # noqa: S311 - no secret
    made = []
    for index in range(number):
        judged = draw.random() < JUDGED
        words = round(draw.lognormvariate(4.2, 0.7)) if judged else round(draw.lognormvariate(2.5, 0.5))
        text = f"{index} " + " ".join(draw.choices(WORDS, k=max(3, min(words, 300))))
        longest = 32 if judged else max(8, min(LONGEST_ANSWER, round(draw.lognormvariate(4.4, 0.8))))
        kind = "judge" if judged else "generate"
        made.append(Call(ChatRequest(MODEL, (Turn("user", text),), longest), f"{kind}-{index // CELL}", judged))
    return made
