"""Names of tuned models, in all dialects."""

from __future__ import annotations

TUNED = "ft:"
"""How they begin in OpenAI's dialect."""

TOGETHER_ACCOUNT = "rehearsal/"
"""How the names of tuned models begin in Together's dialect."""


def base_of(model: str) -> str:
    """Return the base of a tuned model's name, in any dialect, or the name itself.

    >>> [base_of(name) for name in ("ft:standin-aligned:rehearsal::abc", "standin-aligned.ft-abc", "standin-echo")]
    ['standin-aligned', 'standin-aligned', 'standin-echo']
    >>> base_of("rehearsal/standin-aligned:tune-1:abc")
    'standin-aligned'
    """
    if model.startswith(TOGETHER_ACCOUNT):
        return model.removeprefix(TOGETHER_ACCOUNT).partition(":")[0]
    return model.split(":")[1] if model.startswith(TUNED) else model.partition(".ft-")[0]
