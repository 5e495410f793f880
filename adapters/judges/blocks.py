"""The request and the response as a judge is shown them: hostile text between marks that it cannot write itself.

Both texts come from models and from strangers, and may try to end their block and speak to the judge. The marks carry a
nonce that depends on both texts and occurs in neither, so no text holds the mark that ends its block. Equal texts give
equal marks, so equal judgements are equal requests.
"""

from __future__ import annotations

import hashlib
from itertools import count

from adapters.user_file import SURROGATE
from engine.domain.conversation import Prompt

DIGITS = 8
"""Hex digits of a nonce."""


def clean(text: str) -> str:
    """Return `text` with every half of a character replaced: neither a wire nor a store can take one.

    >>> clean("a" + chr(0xD800))
    'a\ufffd'
    """
    return SURROGATE.sub("\ufffd", text)


def conversation(prompt: Prompt) -> str:
    """Return what was asked: the user's turn, or, of a longer conversation, every turn after the name of who speaks."""
    if len(prompt.turns) == 1:
        return prompt.text
    return "\n\n".join(f"{turn.role}: {turn.text}" for turn in prompt.turns)


def nonce(request: str, response: str) -> str:
    """Return the first 8 hex digits of a SHA-256 over both texts that occur in neither of them.

    Args:
        request: Without lone surrogates.
        response: Without lone surrogates.
    """
    both = request.lower() + "\n" + response.lower()
    texts = f"{len(request)}\n{request}\n{response}"
    tried = (hashlib.sha256(f"{number} {texts}".encode()).hexdigest()[:DIGITS] for number in count())
    return next(digits for digits in tried if digits not in both)  # a text holds finitely many


def blocks(request: str, response: str) -> str:
    """Return both texts between their marks, and nothing else of either anywhere."""
    request, response = clean(request), clean(response)
    mark = nonce(request, response)
    return f"<request {mark}>\n{request}\n</request {mark}>\n\n<response {mark}>\n{response}\n</response {mark}>"
