"""A text file of the user's own: pinned by its bytes, and refused where its text could not be stored again."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

SURROGATE = re.compile("[\ud800-\udfff]")


def pin(path: Path) -> str:
    """Return `sha256:` and hex digits over the file's bytes.

    Raises:
        FileNotFoundError: When it is not there.
    """
    with path.expanduser().open("rb") as stream:
        return "sha256:" + hashlib.file_digest(stream, "sha256").hexdigest()


def refuse_half_characters(value: object, where: str) -> None:
    """Refuse text that UTF-8 cannot say: JSON can write half of a character.

    Args:
        value: What JSON gave.
        where: `file:line`, for the error.

    Raises:
        ValueError: When a string in it holds a lone surrogate.
    """
    if SURROGATE.search(json.dumps(value, ensure_ascii=False)):
        message = f"{where}: half of a character (a lone surrogate); write the text in UTF-8"
        raise ValueError(message)
