"""Numbers out of a judge's reply, where they were clearly given, and nowhere else.

Three forms count: a JSON object anywhere in the reply, a line that begins with a field's name, and the `#thescore: N` of
Qi et al. 2023. All that is found must agree. A number in prose is never a score, but may cast doubt on one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

LONGEST = 10_000
"""A longer reply is not read, in characters: judges are asked for a few lines."""

_DECODER = json.JSONDecoder(object_pairs_hook=list)  # pairs, because a key that is there twice may contradict itself
_NUMBER = re.compile(
    r"""[\s*_`"'(\[]* ([0-9]{1,3}) (?:\.0+)? (?:\s*(?:/|out\ of)\s* ([0-9]{1,3}))? (?:\s*\([^()0-9]*\))? [\s.,;*_`"')\]]*""",
    re.VERBOSE | re.IGNORECASE,
)
_YES_NO = {"true": 1, "yes": 1, "false": 0, "no": 0}


@dataclass(frozen=True, slots=True)
class Number:
    """A whole number that a reply must give, from `low` to `high`."""

    name: str
    low: int
    high: int

    @property
    def schema(self) -> dict[str, object]:
        """Its JSON schema. A list of values, because not every provider knows bounds."""
        return {"type": "integer", "enum": list(range(self.low, self.high + 1))}


@dataclass(frozen=True, slots=True)
class Reading:
    """What a reply says.

    Attributes:
        values: The number of each field; None unless every field was clearly given.
        reason: The reply's own reason, or all of it where it names none; untrusted text.
        problem: Why there are no values; empty when there are.
        is_silent: Whether no field was named at all.
    """

    values: Mapping[str, int] | None
    reason: str
    problem: str = ""
    is_silent: bool = False


def read(reply: str, fields: Sequence[Number], *, is_cut: bool = False) -> Reading:
    """Read a reply.

    Args:
        reply: Any text.
        fields: What it must give.
        is_cut: Whether it was cut off: then its last line may lack its end, and no number is read from it.
    """
    if len(reply) > LONGEST:
        return Reading(None, reply, f"longer than {LONGEST:,} characters")
    objects, rest = _objects(reply)
    lines = rest.splitlines()[: -1 if is_cut else None]
    found = {field: [*_in_objects(objects, field), *_in_lines(lines, field)] for field in fields}
    for field, given in found.items():
        given.extend(_doubts(rest, field) if given else ())
    values = {field.name: _agreed(numbers, field) for field, numbers in found.items()}
    problem = next((value for value in values.values() if isinstance(value, str)), "")
    numbers = {name: value for name, value in values.items() if isinstance(value, int)}
    reason = _reason(objects, lines) or reply
    return Reading(None if problem else numbers, reason, problem, is_silent=not any(found.values()))


def _agreed(found: Sequence[int | None], field: Number) -> int | str:
    """Return the one number that a reply gives for a field, or why there is none."""
    if not found:
        return f"no {field.name}"
    value = found[0]
    if value is None or None in found:
        return f"an unclear {field.name}"
    if len(set(found)) > 1:
        return f"more than one {field.name}"
    return value if field.low <= value <= field.high else f"a {field.name} that is not {field.low} to {field.high}"


Pairs = list[tuple[str, object]]


def _objects(reply: str) -> tuple[list[Pairs], str]:
    """Return the JSON objects in a reply, and the rest of it."""
    objects, rest, at = list[Pairs](), list[str](), 0
    while (start := reply.find("{", at)) >= 0:
        try:
            pairs, end = _DECODER.raw_decode(reply, start)
        except (ValueError, RecursionError):  # not JSON; or a number too long, or lists too deep, for Python
            end = start + 1
            rest.append(reply[at:end])
        else:
            objects.append(pairs)
            rest.append(reply[at:start] + "\n")
        at = end
    return objects, "".join([*rest, reply[at:]])


def _in_objects(objects: Sequence[Pairs], field: Number) -> Iterator[int | None]:
    for pairs in objects:
        for key, value in pairs:
            if key.strip().lower() == field.name:
                yield _value(value, field)


def _in_lines(lines: Sequence[str], field: Number) -> Iterator[int | None]:
    label = _label(field.name)
    for line in lines:
        found = label.search(line)
        if found:
            yield _value(found[1], field)


def _doubts(rest: str, field: Number) -> Iterator[int]:
    """Yield the field's numbers inside lines. They give no score, but may contradict one: a judge quotes what it read.

    A judge that forgets to escape a quotation, say, leaves `{"reason": "it says {"score": 5}", "score": 1}`.
    """
    for found in re.finditer(
        rf"""(?<![a-z]){field.name}[ \t*_`"']*[:=][ \t*_`"']*([0-9]{{1,3}})""", rest, re.IGNORECASE
    ):
        yield int(found[1])


def _label(name: str) -> re.Pattern[str]:
    return re.compile(rf"""(?:^[ \t>*_`#"'-]*(?:the)?|\#the){name}[ \t*_`"']*[:=](.*)""", re.IGNORECASE)


def _value(value: object, field: Number) -> int | None:
    """Return a whole number, or None when it is not clearly one."""
    if isinstance(value, str):
        return _number(value, field)
    if isinstance(value, bool):
        return int(value) if field.high == 1 else None
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    return value if isinstance(value, int) else None


def _number(text: str, field: Number) -> int | None:
    if field.high == 1 and (word := text.strip(" \t.,;*_`\"'").lower()) in _YES_NO:
        return _YES_NO[word]
    found = _NUMBER.fullmatch(text)
    if found is None or (found[2] is not None and int(found[2]) != field.high):
        return None  # `8/10` is on another scale
    return int(found[1])


def _reason(objects: Sequence[Pairs], lines: Sequence[str]) -> str:
    given = [value for pairs in objects for key, value in pairs if key == "reason" and isinstance(value, str)]
    label = _label("reason")
    return " ".join(given or [found[1] for line in lines if (found := label.search(line))]).strip()
