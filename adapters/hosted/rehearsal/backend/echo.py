"""`standin-echo`: answers at once, with text that depends on the question alone, of lengths as skewed as real ones."""

from __future__ import annotations

import hashlib
import math
import random

MEDIAN_WORDS = 24
SPREAD = 0.9
"""Standard deviation of the logarithm of an answer's length: the longest of a hundred is some eight times the median."""

CHARACTERS_A_WORD = 4


def tokens(text: str) -> int:
    """Return how many tokens a text is billed as: a quarter of its characters, at least one where there are any."""
    return math.ceil(len(text) / CHARACTERS_A_WORD)


def answer(question: str, sample: int, max_tokens: int) -> tuple[str, int, bool]:
    """Return an answer, its tokens, and whether it was cut off at `max_tokens`.

    Args:
        question: The last user turn.
        sample: Which of several answers, from 0.
        max_tokens: Longest answer, in tokens of one word each.

    >>> answer("How many?", 0, 50) == answer("How many?", 0, 50)
    True
    """
    digest = hashlib.sha256(f"{sample} {question}".encode("utf-8", "surrogatepass")).digest()
    draw = random.Random(digest)  # noqa: S311 - no secret
    wanted = max(1, round(draw.lognormvariate(math.log(MEDIAN_WORDS), SPREAD)))
    words = question.split() or ["nothing"]
    made = min(wanted, max_tokens)
    return " ".join(words[place % len(words)] for place in range(made)), made, wanted > max_tokens
