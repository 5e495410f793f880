"""YAML text to plain values that know their place. Strict YAML 1.2: what it cannot say plainly, it refuses.

They are composed from PyYAML's events rather than by `yaml.compose`, because events can be refused one by one: depth,
aliases, tags and further documents are bounded before anything is built from them.
"""

from __future__ import annotations

import codecs
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

import yaml
from yaml import events

from engine.domain.errors import Problem
from engine.spec.positions import Mark, Positions, Problems, Source, visible

MAX_ALIASES = 100
MAX_DEPTH = 32
MAX_VALUES = 200_000

Plain: TypeAlias = "str | int | float | bool | list[Plain] | dict[str, Plain] | None"
"""What YAML says. Lists and mappings that were read from a text are `Seq` and `Map`, which know their places."""

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # PyYAML may be built without libyaml; the events are the same

_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_INT_DIGITS = 18
_FORBIDDEN = re.compile(
    "[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]"
)  # YAML's printable characters, less the byte-order mark inside a text


class Map(dict[str, "Plain"]):
    """Keys and values in file order, each key once; `places` has where each key and its value stand."""

    def __init__(self) -> None:
        """Begin with nothing."""
        super().__init__()
        self.places: dict[str, tuple[Mark, Mark]] = {}

    def put(self, key: str, value: Plain, place: tuple[Mark, Mark]) -> None:
        """Set a value."""
        self[key] = value
        self.places[key] = place


class Seq(list["Plain"]):
    """A list; `places` has where each item stands."""

    def __init__(self) -> None:
        """Begin with nothing."""
        super().__init__()
        self.places: list[Mark] = []

    def put(self, value: Plain, place: Mark) -> None:
        """Add an item."""
        self.append(value)
        self.places.append(place)


class _StopReadingError(Exception):
    """Carries a problem after which the rest of the text makes no sense."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.what)
        self.problem = problem


def placed(value: object, at: Mark) -> Plain:
    """Return a copy of a value, all of which stands at one place."""
    if isinstance(value, dict):
        mapping = Map()
        for key, inside in value.items():
            mapping.put(str(key), placed(inside, at), (at, at))
        return mapping
    if isinstance(value, list | tuple):
        items = Seq()
        for item in value:
            items.put(placed(item, at), at)
        return items
    return value if isinstance(value, str | int | float | bool) else None


def positions(root: Map, start: Mark, overridden: frozenset[str] = frozenset()) -> Positions:
    """Return where everything in a file stands."""
    values: dict[str, Mark] = {}
    keys: dict[str, Mark] = {}
    for path, key, value in _walk(root, ""):
        # Of what begins on a later line, the key says more than its first child.
        values.setdefault(path, key if key is not None and key.line < value.line else value)
        if key is not None:
            keys.setdefault(path, key)
    return Positions(start, values, keys, overridden)


def _walk(value: Plain, path: str) -> Iterator[tuple[str, Mark | None, Mark]]:
    """Yield the path of each value inside, the place of its key (None in a list) and its own place."""
    if isinstance(value, Map):
        for key, inside in value.items():
            where = join(path, key)
            yield where, *value.places[key]
            yield from _walk(inside, where)
    elif isinstance(value, Seq):
        for index, (item, mark) in enumerate(zip(value, value.places, strict=True)):
            yield f"{path}[{index}]", None, mark
            yield from _walk(item, f"{path}[{index}]")


def join(path: str, key: str) -> str:
    """Return the dotted path of `key` inside `path`, made safe to print."""
    shown = visible(key if len(key) <= _SHOWN_KEY else key[: _SHOWN_KEY - 1] + "…")
    return f"{path}.{shown}" if path else shown


_SHOWN_KEY = 60


def decoded(raw: bytes, name: str, problems: Problems) -> tuple[Source, str]:
    """Return the text of a file, empty when it is not UTF-8."""
    raw = raw.removeprefix(codecs.BOM_UTF8)
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        before = Source.of(name, raw[: error.start].decode("utf-8"))
        mark = Mark(before, len(before.lines), len(before.lines[-1]) + 1)
        what = f"not UTF-8 text (byte 0x{raw[error.start]:02x})"
        problems.add(mark.problem("", what, code="not_utf8", hint="save the file as UTF-8"))
        return Source(name, ("",)), ""
    return Source.of(name, text), text


def compose(source: Source, text: str, problems: Problems, path: str = "") -> tuple[Plain, Mark] | None:
    """Read one YAML document.

    Args:
        source: Where `text` stands; its lines are shown in problems.
        text: The YAML.
        problems: Receives everything that is wrong.
        path: Dotted path of the value that the text is.

    Returns:
        The value and where it begins, or None when the text is empty or cannot be read to its end.
    """
    bad = _FORBIDDEN.search(text)
    if bad:
        before = Source.of(source.name, text[: bad.start()]).lines
        place = Mark(source, source.first_line + len(before) - 1, len(before[-1]) + 1)
        what = f"a character that YAML does not allow: {visible(bad.group())}"
        problems.add(place.problem(path, what, code="bad_character", hint="save the file as plain UTF-8 text"))
        return None
    try:
        return _Composer(source, problems, iter(yaml.parse(text, Loader=_Loader))).document(path)
    except _StopReadingError as stop:
        problems.add(stop.problem)
    except yaml.MarkedYAMLError as error:
        problems.add(_syntax_problem(source, error, path))
    return None


def _syntax_problem(source: Source, error: yaml.MarkedYAMLError, path: str) -> Problem:
    where = error.problem_mark or error.context_mark
    place = _mark(source, where.line, where.column) if where else Mark(source, source.first_line, 1)
    index = place.line - source.first_line
    line = source.lines[index] if index < len(source.lines) else ""
    hint = error.context or ""
    if where and error.context_mark and error.context_mark.line != where.line:
        hint += f" that begins at line {source.first_line + error.context_mark.line}"
    if line[place.column - 1 : place.column] == "\t":
        hint = "YAML is indented with spaces; this is a tab"
    elif "mapping values" in str(error.problem):
        hint = "quote text that contains `: `, and check the indentation"
    return place.problem(path, f"not YAML: {error.problem}", code="yaml_syntax", hint=hint)


def _mark(source: Source, line: int, column: int) -> Mark:
    """Return the place of PyYAML's 0-based line and column; the end of the text counts as its last line's end."""
    if line >= len(source.lines):
        return Mark(source, source.first_line + len(source.lines) - 1, len(source.lines[-1]) + 1)
    return Mark(source, source.first_line + line, column + 1)


@dataclass(slots=True)
class _Composer:
    """Turns one stream of events into a value."""

    source: Source
    problems: Problems
    stream: Iterator[events.Event]
    aliases: int = 0
    depth: int = 0
    values: int = 0  # aliases expanded
    anchors: dict[str, Plain] = field(default_factory=dict)
    unfinished: set[str] = field(default_factory=set)  # anchors of what is still being read

    def document(self, path: str) -> tuple[Plain, Mark] | None:
        """Return the only document, or None when there is none."""
        next(self.stream)  # the start of the stream
        if isinstance(next(self.stream), events.StreamEndEvent):
            return None
        first = next(self.stream)
        value = self.value(first, path)
        next(self.stream)  # the end of the document
        further = next(self.stream)
        if not isinstance(further, events.StreamEndEvent):
            what, hint = "a second YAML document begins here", "one file holds one sweep: remove the `---`"
            raise _StopReadingError(self.place(further).problem(path, what, code="multiple_documents", hint=hint))
        return value, self.place(first)

    def place(self, event: events.Event) -> Mark:
        """Return where an event begins."""
        mark = event.start_mark
        return _mark(self.source, mark.line, mark.column) if mark else Mark(self.source, self.source.first_line, 1)

    def value(self, event: events.Event, path: str) -> Plain:
        """Return the value that `event` opens."""
        mark = self.place(event)
        if isinstance(event, events.AliasEvent):
            return self.alias(event.anchor or "", mark, path)
        tag = getattr(event, "tag", None)
        if tag is not None:
            what = f"YAML tags are refused (got {visible(tag)[:60]})"
            self.problems.add(mark.problem(path, what, code="tag", hint="write the value without the `!`"))
        anchor = getattr(event, "anchor", None)
        if anchor is not None:
            self.unfinished.add(anchor)
        self.values += 1
        if isinstance(event, events.ScalarEvent):
            value = self.scalar(event, mark, path)
        else:
            value = self.collection(event, mark, path)
        if anchor is not None:
            self.anchors[anchor] = value
            self.unfinished.discard(anchor)
        return value

    def alias(self, anchor: str, mark: Mark, path: str) -> Plain:
        """Return a copy of what an alias stands for."""
        self.aliases += 1
        name = visible(anchor)[:60]
        if self.aliases > MAX_ALIASES:
            raise _StopReadingError(mark.problem(path, f"more than {MAX_ALIASES} aliases", code="too_many_aliases"))
        if anchor in self.unfinished:
            raise _StopReadingError(mark.problem(path, f"`*{name}` contains itself", code="recursive_alias"))
        if anchor not in self.anchors:
            self.problems.add(mark.problem(path, f"no anchor `&{name}` comes before this", code="unknown_alias"))
            return None
        size, depth = _extent(self.anchors[anchor])
        self.values += size
        self.bound(mark, path, depth)
        return placed(self.anchors[anchor], mark)

    def bound(self, mark: Mark, path: str, depth: int) -> None:
        """Refuse too many values, and `depth` further levels of them where that is too deep."""
        if self.depth + depth > MAX_DEPTH:
            raise _StopReadingError(mark.problem("", f"nested more than {MAX_DEPTH} deep", code="too_deep"))
        if self.values > MAX_VALUES:
            what = f"more than {MAX_VALUES:,} values, aliases expanded"
            raise _StopReadingError(mark.problem(path, what, code="too_large"))

    def collection(self, event: events.Event, mark: Mark, path: str) -> Plain:
        """Return a list or a mapping with all that is inside."""
        self.bound(mark, path, 1)
        self.depth += 1
        value = self.sequence(path) if isinstance(event, events.SequenceStartEvent) else self.mapping(path)
        self.depth -= 1
        self.bound(mark, path, 0)
        return value

    def sequence(self, path: str) -> Seq:
        """Return a list."""
        items = Seq()
        while not isinstance(event := next(self.stream), events.SequenceEndEvent):
            items.put(self.value(event, f"{path}[{len(items)}]"), self.place(event))
        return items

    def mapping(self, path: str) -> Map:
        """Return a mapping; a key that is refused leaves its value out."""
        mapping = Map()
        while not isinstance(event := next(self.stream), events.MappingEndEvent):
            mark = self.place(event)
            key = self.key(self.value(event, path), mark, path, mapping)
            opening = next(self.stream)
            value = self.value(opening, join(path, key or "?"))
            if key is not None:
                mapping.put(key, value, (mark, self.place(opening)))
        return mapping

    def key(self, key: Plain, mark: Mark, path: str, mapping: Map) -> str | None:
        """Return a key, or None when it is refused."""
        if not isinstance(key, str):
            found = "something else" if key is None or isinstance(key, list | dict) else repr(key)
            self.problems.add(mark.problem(path, f"a key must be text (got {found})", code="key_not_text"))
            return None
        inside = join(path, key)
        if key == "<<":
            what, hint = "merge keys are not supported", "write the fields out, or use `axes`"
            self.problems.add(mark.problem(inside, what, code="merge_key", hint=hint))
            return None
        if key in mapping:
            first, _ = mapping.places[key]
            what = f"this key is already at {first.line}:{first.column}"
            self.problems.add(mark.problem(inside, what, code="duplicate_key", hint="remove one of the two"))
            return None
        return key

    def scalar(self, event: events.ScalarEvent, mark: Mark, path: str) -> Plain:
        """Return a scalar, its type by the core schema of YAML 1.2."""
        if not event.implicit[0]:  # quoted, a block of text, or tagged: always text
            return str(event.value)
        # Python would not convert thousands of digits.
        is_long = _INT.fullmatch(event.value) and len(event.value.lstrip("+-0ox")) > _INT_DIGITS
        value = None if is_long else core_value(event.value)
        if is_long or (isinstance(value, float) and not math.isfinite(value)):
            what = f"not a usable number (got {event.value[:40]})"
            self.problems.add(mark.problem(path, what, code="bad_number", hint="write a finite number"))
            return None
        return value


def _extent(value: Plain) -> tuple[int, int]:
    """Return how many values a value is with all that is inside, and how deep they are nested."""
    if not isinstance(value, dict | list):
        return 1, 0
    extents = [_extent(inside) for inside in (value.values() if isinstance(value, dict) else value)]
    return 1 + sum(size for size, _ in extents), 1 + max((depth for _, depth in extents), default=0)


def core_value(text: str) -> str | int | float | bool | None:
    """Return what a plain scalar means in the core schema of YAML 1.2.

    Source: https://yaml.org/spec/1.2.2/#103-core-schema

    >>> [core_value(text) for text in ("5e-5", "no", "0o17", "017", "1_000", "~", "TRUE", "1:30")]
    [5e-05, 'no', 15, 17, '1_000', None, True, '1:30']
    """
    if text in _NULL:
        return None
    if text in _BOOL:
        return _BOOL[text]
    if _INT.fullmatch(text):
        return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))
    if _FLOAT.fullmatch(text):
        return float(text)
    return math.nan if _NOT_FINITE.fullmatch(text) else text
