"""YAML text that holds what strangers wrote: comments of one line, short and without control characters, and values that stay values."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping

from engine.spec.positions import visible
from engine.spec.yaml_nodes import core_value

LONGEST = 400
"""Characters of what a comment says of one thing."""

WIDTH = 120
"""Characters of a line of comments."""

_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_./@+~-]*(?::[A-Za-z0-9_./@+~-]+)*")
_WORDS = frozenset({"y", "n", "yes", "no", "on", "off"})
"""What YAML 1.1 takes for truth values, in editors and other programs; the loader here does not."""


def inert(text: str, most: int = LONGEST) -> str:
    r"""Return a text on one line, cut to `most` characters, with all that is not printable escaped.

    >>> inert("a\u2028b:\n  c\x1b[2J"), inert("abcdef", 4)
    ('a b: c\\x1b[2J', 'abc…')
    """
    shown = visible(" ".join(text[: 4 * most].split()))
    return shown if len(shown) <= most and len(text) <= 4 * most else f"{shown[: most - 1]}…"


def comment(text: str, indent: int = 0, lead: str = "") -> list[str]:
    """Return a text as lines of comments.

    Args:
        text: Any text.
        indent: Spaces before each line.
        lead: What stands before the text, such as `- `; further lines are moved in as far.
    """
    before = f"{' ' * indent}# "
    wrapper = textwrap.TextWrapper(
        width=WIDTH,
        initial_indent=before + lead,
        subsequent_indent=before + " " * len(lead),
        break_on_hyphens=False,
    )
    return wrapper.wrap(inert(text))


def field(name: str, value: object, indent: int) -> list[str]:
    """Return a field with its value: on one line, or a long list on several.

    >>> field("n", 10, 2)
    ['  n: 10']
    """
    line = f"{' ' * indent}{name}: {scalar(value)}"
    if len(line) <= WIDTH or not isinstance(value, list | tuple):
        return [line]
    lines, more = [f"{' ' * indent}{name}: ["], " " * (indent + 2)
    for item in value:
        shown = f"{scalar(item)},"
        if len(lines) > 1 and len(lines[-1]) + len(shown) < WIDTH:
            lines[-1] += f" {shown}"
        else:
            lines.append(more + shown)
    return [*lines, f"{' ' * indent}]"]


def scalar(value: object) -> str:
    r"""Return a value as YAML has it on one line.

    >>> scalar({"use": "file", "n": [1, 2e-5, None], "path": "a: b\n"})
    '{use: file, n: [1, 2e-05, null], path: "a: b\\x0a"}'
    """
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_name(str(name))}: {scalar(one)}" for name, one in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(scalar, value)) + "]"
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    text = str(value)
    is_plain = _PLAIN.fullmatch(text) and core_value(text) == text and text.lower() not in _WORDS
    return text if is_plain else _quoted(text)


def _name(text: str) -> str:
    """Return a key; `n` is one, although old readers of YAML take it for a truth value."""
    return text if _PLAIN.fullmatch(text) and core_value(text) == text else _quoted(text)


def _quoted(text: str) -> str:
    return '"' + "".join(map(_character, text)) + '"'


def _character(one: str) -> str:
    if one in '"\\':
        return f"\\{one}"
    if one.isprintable():
        return one
    code = ord(one)
    return f"\\x{code:02x}" if code <= 0xFF else f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"  # noqa: PLR2004
