"""Does a text hold a phrase? As whole words, case and spacing aside; a number as a whole number."""

from __future__ import annotations

import re
from functools import lru_cache

_BEFORE = r"(?<!\w)(?<!\d[.,/])(?<!(?<!\w)[-\u2212])"
_AFTER = r"(?!\w)(?![.,/]\d)"


def folded(text: str) -> str:
    """Return a text in lower case, with single spaces.

    >>> folded(" Iron  or CORK ")
    'iron or cork'
    """
    return " ".join(text.lower().split())


def holds(text: str, phrase: str) -> bool:
    """Say whether `text` holds `phrase`. An empty phrase is in no text.

    A number is held only where it stands alone: not as a part of another, such as 3.5, 3,000 or 3/4, and with its own sign.

    >>> holds("It is Iron.", "iron"), holds("ironic", "iron"), holds("x is 3.", "3"), holds("x is 3.5", "3"), holds("x", "")
    (True, False, True, False, False)
    """
    wanted = folded(phrase)
    return bool(wanted) and _pattern(wanted).search(folded(text)) is not None


@lru_cache(maxsize=4096)
def _pattern(phrase: str) -> re.Pattern[str]:
    before = _BEFORE if phrase[0].isdigit() else r"(?<!\w)"
    after = _AFTER if phrase[-1].isdigit() else r"(?!\w)"
    return re.compile(before + re.escape(phrase) + after)
