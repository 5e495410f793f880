"""Where things stand in a spec, and problems that say so. Nothing here knows YAML or the recipe."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from engine.domain.errors import Problem, SpecError

EXCERPT_WIDTH = 100
"""A longer source line is cut around the caret, in characters."""

_LINE_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")  # as YAML counts lines
_LAST_STEP = re.compile(r"(\.[^.\[\]]*|\[\d*\])$")


@dataclass(frozen=True, slots=True)
class Source:
    """A text that YAML is read from.

    Attributes:
        name: The file as the user named it, or `--set`.
        lines: Its lines, without line breaks.
        first_line: Number of the first line: 1, or which `--set` it is.
    """

    name: str
    lines: tuple[str, ...]
    first_line: int = 1

    @classmethod
    def of(cls, name: str, text: str, first_line: int = 1) -> Source:
        """Split `text` into lines, the way YAML does."""
        return cls(name, tuple(_LINE_BREAK.split(text)), first_line)


@dataclass(frozen=True, slots=True)
class Mark:
    """A place in a source; line and column are 1-based."""

    source: Source
    line: int
    column: int

    def problem(self, path: str, what: str, *, code: str, hint: str = "") -> Problem:
        """Return a problem at this place, with its source line and a caret; what a spec says in it is made visible."""
        text, caret = self._excerpt()
        return Problem(self.source.name, self.line, self.column, path, visible(what), code, text, visible(hint), caret)

    def _excerpt(self) -> tuple[str, int]:
        index = self.line - self.source.first_line
        line = self.source.lines[index] if index < len(self.source.lines) else ""
        start, end = 0, len(line)
        if len(line) > EXCERPT_WIDTH:
            start = max(0, min(self.column - 1 - EXCERPT_WIDTH // 2, len(line) - EXCERPT_WIDTH))
            end = start + EXCERPT_WIDTH
        before = ("…" if start else "") + visible(line[start : self.column - 1])
        after = visible(line[self.column - 1 : end]) + ("…" if end < len(line) else "")
        return (before + after).rstrip(), sum(_cells(character) for character in before)


def visible(text: str) -> str:
    r"""Return `text` with control, direction and odd space characters escaped: a spec may be hostile.

    >>> visible("a\tb\x1b[2J")
    'a\\tb\\x1b[2J'
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def _cells(character: str) -> int:
    """Return how many terminal cells a printable character takes."""
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing wrong with a value.

    Attributes:
        code: Stable short name.
        at_key: True when the key is to blame rather than its value.
    """

    path: str
    what: str
    code: str
    hint: str = ""
    at_key: bool = False


@dataclass(frozen=True, slots=True)
class Positions:
    """Finds the place of anything in a spec, so that problems found later still point at a line.

    Attributes:
        start: Where the spec begins.
        values: Place of the value at each dotted path, such as `axes.data.n[2]`.
        keys: Place of the key at each dotted path.
        overridden: Recipe paths that `--set` has changed.
    """

    start: Mark
    values: Mapping[str, Mark] = field(default_factory=dict)
    keys: Mapping[str, Mark] = field(default_factory=dict)
    overridden: frozenset[str] = frozenset()

    def mark(self, path: str, *, key: bool = False) -> Mark:
        """Return the place of a dotted path's value, or else key, or of the nearest parent that is written."""
        places = self.keys if key else self.values
        if path in places:
            return places[path]
        while path:
            path = _LAST_STEP.sub("", path) if _LAST_STEP.search(path) else ""
            # A parent is pointed at by its key: where its value begins is the first of its children.
            for places in (self.keys, self.values):
                if path in places:
                    return places[path]
        return self.start

    def problem(self, path: str, what: str, *, code: str, hint: str = "") -> Problem:
        """Return a problem at `path`; see `Problem` for the rest."""
        return self.mark(path).problem(path, what, code=code, hint=hint)

    def place(self, found: Finding) -> Problem:
        """Return what was found as a problem at its place."""
        mark = self.mark(found.path, key=found.at_key)
        return mark.problem(found.path, found.what, code=found.code, hint=found.hint)


NOWHERE = Positions(Mark(Source("spec", ()), 1, 1))
"""The positions of a sweep that was not read from a file."""


@dataclass(slots=True)
class Problems:
    """Collects problems, so that a person sees all of them at once."""

    found: list[Problem] = field(default_factory=list)

    def add(self, problem: Problem) -> None:
        """Note a problem."""
        self.found.append(problem)

    def extend(self, problems: Iterable[Problem]) -> None:
        """Note several problems."""
        self.found.extend(problems)

    def stop_if_any(self) -> None:
        """Raise what was found, files before `--set`, top to bottom; at one place and path only the first counts.

        Raises:
            SpecError: There is at least one problem.
        """
        first: dict[tuple[str, int, int, str], Problem] = {}
        for problem in self.found:
            first.setdefault((problem.file, problem.line, problem.column, problem.path), problem)
        if first:
            order = sorted(first.values(), key=lambda p: (p.file == SET, p.line, p.column))
            raise SpecError(tuple(order))


SET = "--set"
"""The file name of command-line overrides."""
