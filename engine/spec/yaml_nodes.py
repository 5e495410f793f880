"""YAML text to a tree of nodes that know their place. Strict YAML 1.2: what it cannot say plainly, it refuses.

The tree is composed from PyYAML's events rather than by `yaml.compose`, because events can be refused one by one:
depth, aliases, tags and further documents are bounded before anything is built from them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

import yaml
from yaml import events

from engine.domain.errors import Problem
from engine.spec.positions import Mark, Problems, Source, visible

MAX_ALIASES = 100
MAX_DEPTH = 32
MAX_VALUES = 200_000

Plain: TypeAlias = "str | int | float | bool | list[Plain] | dict[str, Plain] | None"
"""What YAML says, without its places."""

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


@dataclass(frozen=True, slots=True)
class Scalar:
    """A single value."""

    value: str | int | float | bool | None
    mark: Mark
    size: int = 1

    @property
    def plain(self) -> Plain:
        """The value."""
        return self.value


@dataclass(frozen=True, slots=True)
class Sequence:
    """A list; `size` counts the values in it, aliases expanded."""

    items: tuple[Node, ...]
    mark: Mark
    size: int

    @property
    def plain(self) -> Plain:
        """The values."""
        return [item.plain for item in self.items]


@dataclass(frozen=True, slots=True)
class Entry:
    """A key and its value."""

    key: str
    mark: Mark
    value: Node


@dataclass(frozen=True, slots=True)
class Mapping:
    """Keys and values in file order, each key once; `size` counts the values in it, aliases expanded."""

    entries: tuple[Entry, ...]
    mark: Mark
    size: int = 1

    @property
    def plain(self) -> dict[str, Plain]:
        """The keys and values."""
        return {entry.key: entry.value.plain for entry in self.entries}

    def get(self, key: str) -> Entry | None:
        """Return the entry of `key`, or None."""
        return next((entry for entry in self.entries if entry.key == key), None)


Node: TypeAlias = Scalar | Sequence | Mapping


class _StopReadingError(Exception):
    """Carries a problem after which the rest of the text makes no sense."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.what)
        self.problem = problem


def of_plain(value: object, mark: Mark) -> Node:
    """Return a value as a node; all of it stands at one place."""
    if isinstance(value, dict):
        entries = tuple(Entry(str(key), mark, of_plain(inside, mark)) for key, inside in value.items())
        return Mapping(entries, mark, 1 + sum(entry.value.size for entry in entries))
    if isinstance(value, list | tuple):
        items = tuple(of_plain(item, mark) for item in value)
        return Sequence(items, mark, 1 + sum(item.size for item in items))
    return Scalar(value if isinstance(value, str | int | float | bool) else None, mark)


def walk(node: Node, path: str = "") -> Iterator[tuple[str, Mark | None, Mark]]:
    """Yield each value's dotted path, the place of its key (None in a list) and its own place."""
    if isinstance(node, Mapping):
        for entry in node.entries:
            inside = join(path, entry.key)
            yield inside, entry.mark, entry.value.mark
            yield from walk(entry.value, inside)
    elif isinstance(node, Sequence):
        for index, item in enumerate(node.items):
            yield f"{path}[{index}]", None, item.mark
            yield from walk(item, f"{path}[{index}]")


def join(path: str, key: str) -> str:
    """Return the dotted path of `key` inside `path`, made safe to print."""
    shown = visible(key if len(key) <= _SHOWN_KEY else key[: _SHOWN_KEY - 1] + "…")
    return f"{path}.{shown}" if path else shown


_SHOWN_KEY = 60


def compose(source: Source, text: str, problems: Problems, path: str = "") -> Node | None:
    """Read one YAML document.

    Args:
        source: Where `text` stands; its lines are shown in problems.
        text: The YAML.
        problems: Receives everything that is wrong.
        path: Dotted path of the value that the text is.

    Returns:
        The tree, or None when the text is empty or cannot be read to its end.
    """
    bad = _FORBIDDEN.search(text)
    if bad:
        before = Source.of(source.name, text[: bad.start()]).lines
        place = Mark(source, source.first_line + len(before) - 1, len(before[-1]) + 1)
        what = f"a character that YAML does not allow: {visible(bad.group())}"
        problems.add(place.problem(path, what, code="bad_character", hint="save the file as plain UTF-8 text"))
        return None
    try:
        return _Composer(source, text, problems).document(path)
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
    """Turns one stream of events into a tree."""

    source: Source
    text: str
    problems: Problems
    aliases: int = 0
    depth: int = 0
    anchors: dict[str, Node | None] = field(default_factory=dict)  # None while the anchored value is still open
    stream: Iterator[events.Event] = field(default_factory=lambda: iter(()))

    def document(self, path: str) -> Node | None:
        """Return the only document, or None when there is none."""
        self.stream = iter(yaml.parse(self.text, Loader=_Loader))
        next(self.stream)  # the start of the stream
        if isinstance(next(self.stream), events.StreamEndEvent):
            return None
        node = self.node(next(self.stream), path)
        next(self.stream)  # the end of the document
        further = next(self.stream)
        if not isinstance(further, events.StreamEndEvent):
            what, hint = "a second YAML document begins here", "one file holds one sweep: remove the `---`"
            raise _StopReadingError(self.place(further).problem(path, what, code="multiple_documents", hint=hint))
        return node

    def place(self, event: events.Event) -> Mark:
        """Return where an event begins."""
        mark = event.start_mark
        return _mark(self.source, mark.line, mark.column) if mark else Mark(self.source, self.source.first_line, 1)

    def node(self, event: events.Event, path: str) -> Node:
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
            self.anchors[anchor] = None
        node = self.collection(event, mark, path)
        if node.size > MAX_VALUES:
            what = f"more than {MAX_VALUES:,} values, aliases expanded"
            raise _StopReadingError(mark.problem(path, what, code="too_large"))
        if anchor is not None:
            self.anchors[anchor] = node
        return node

    def alias(self, anchor: str, mark: Mark, path: str) -> Node:
        """Return what an alias stands for."""
        self.aliases += 1
        name = visible(anchor)[:60]
        if self.aliases > MAX_ALIASES:
            raise _StopReadingError(mark.problem(path, f"more than {MAX_ALIASES} aliases", code="too_many_aliases"))
        if anchor not in self.anchors:
            self.problems.add(mark.problem(path, f"no anchor `&{name}` comes before this", code="unknown_alias"))
            return Scalar(None, mark)
        node = self.anchors[anchor]
        if node is None:
            raise _StopReadingError(mark.problem(path, f"`*{name}` contains itself", code="recursive_alias"))
        return node

    def collection(self, event: events.Event, mark: Mark, path: str) -> Node:
        """Return a scalar, or a list or mapping with all that is inside."""
        if isinstance(event, events.ScalarEvent):
            return self.scalar(event, mark, path)
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise _StopReadingError(mark.problem("", f"nested more than {MAX_DEPTH} deep", code="too_deep"))
        node = self.sequence(mark, path) if isinstance(event, events.SequenceStartEvent) else self.mapping(mark, path)
        self.depth -= 1
        return node

    def sequence(self, mark: Mark, path: str) -> Sequence:
        """Return a list."""
        items: list[Node] = []
        while not isinstance(event := next(self.stream), events.SequenceEndEvent):
            items.append(self.node(event, f"{path}[{len(items)}]"))
        return Sequence(tuple(items), mark, 1 + sum(item.size for item in items))

    def mapping(self, mark: Mark, path: str) -> Mapping:
        """Return a mapping; a key that is refused leaves its value out."""
        entries: dict[str, Entry] = {}
        while not isinstance(event := next(self.stream), events.MappingEndEvent):
            key_mark, key = self.place(event), self.node(event, path)
            name = self.key(key, key_mark, path, entries)
            value = self.node(next(self.stream), join(path, name or "?"))
            if name is not None:
                entries[name] = Entry(name, key_mark, value)
        return Mapping(tuple(entries.values()), mark, 1 + sum(entry.value.size for entry in entries.values()))

    def key(self, key: Node, mark: Mark, path: str, entries: dict[str, Entry]) -> str | None:
        """Return a key's text, or None when it is refused."""
        if not isinstance(key, Scalar) or not isinstance(key.value, str):
            found = f"{key.value!r}" if isinstance(key, Scalar) and key.value is not None else "something else"
            self.problems.add(mark.problem(path, f"a key must be text (got {found})", code="key_not_text"))
            return None
        inside = join(path, key.value)
        if key.value == "<<":
            what, hint = "merge keys are not supported", "write the fields out, or use `axes`"
            self.problems.add(mark.problem(inside, what, code="merge_key", hint=hint))
            return None
        if key.value in entries:
            first = entries[key.value].mark
            what = f"this key is already at {first.line}:{first.column}"
            self.problems.add(mark.problem(inside, what, code="duplicate_key", hint="remove one of the two"))
            return None
        return key.value

    def scalar(self, event: events.ScalarEvent, mark: Mark, path: str) -> Scalar:
        """Return a scalar, its type by the core schema of YAML 1.2."""
        if not event.implicit[0]:  # quoted, a block of text, or tagged: always text
            return Scalar(event.value, mark)
        value = core_value(event.value)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if number and (_is_too_big(event.value, value) or _NOT_FINITE.fullmatch(event.value)):
            what = f"not a usable number (got {event.value[:40]})"
            self.problems.add(mark.problem(path, what, code="bad_number", hint="write a finite number"))
            return Scalar(None, mark)
        return Scalar(value, mark)


def _is_too_big(text: str, value: object) -> bool:
    if isinstance(value, float):
        return not math.isfinite(value)
    return len(text.lstrip("+-0ox")) > _INT_DIGITS


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
        return _int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    return math.nan if _NOT_FINITE.fullmatch(text) else text


def _int(text: str) -> int:
    if len(text) > 2 * _INT_DIGITS and not text.strip("0123456789+-"):
        text = text[: 2 * _INT_DIGITS]  # it is refused for its length; Python would not convert thousands of digits
    return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))
