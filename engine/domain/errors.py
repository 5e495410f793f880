"""The exception tree. What lives here: every error that the engine raises on purpose.

    DosimeterError                what, where, what to do: three lines for a person
    ├── SpecError                 the YAML (or --set) is wrong; carries every problem with its position
    ├── PlanError                 the sweep is well-formed but cannot be planned (a pin, a plug-in, a limit)
    │   ├── UnknownAdapterError   no adapter of that kind and name is installed
    │   └── UnstableValueError    a value without stable bytes was about to enter a key
    ├── RunError                  the run cannot start or go on
    │   └── RunLockedError        another process drives this run directory
    ├── StoreError                the store is damaged or not a run directory
    └── QueryError                the SQL or the query's name is wrong, or the query ran too long

Adapters raise plain Python exceptions; `engine.run.executors.workers` is the one boundary that turns them into a failed
attempt, which is a row and not a crash.
"""

from __future__ import annotations

from dataclasses import dataclass


class DosimeterError(Exception):
    """An error meant for the person at the keyboard.

    Args:
        what: One sentence: what is wrong.
        where: The place, as `file:line:col`, a path, or a name; empty when there is none.
        todo: One sentence: what to do about it; empty when that is plain.
    """

    def __init__(self, what: str, *, where: str = "", todo: str = "") -> None:
        """Keep the three parts, so that the front door may lay them out as it likes."""
        super().__init__(what)
        self.what = what
        self.where = where
        self.todo = todo

    def __str__(self) -> str:
        """Return the three parts on up to three lines."""
        return "\n".join(part for part in (self.what, self.where, self.todo) if part)


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a spec, and where.

    Attributes:
        file: The file as the user named it, or `--set`.
        line: 1-based line.
        column: 1-based column.
        path: Dotted path in the spec, such as `tune.lr` or `axes.data.n[2]`; empty for the whole file.
        what: What is wrong, with the value that was found.
        code: A short stable name for machines, such as `unknown_field`.
        excerpt: The source line, without its newline; long lines cut, control characters escaped; may be empty.
        hint: What to do: a did-you-mean, the allowed values; empty when there is none.
        caret: 0-based terminal cell of `excerpt` that `column` became; None when that is `column - 1`.
    """

    file: str
    line: int
    column: int
    path: str
    what: str
    code: str
    excerpt: str = ""
    hint: str = ""
    caret: int | None = None

    @property
    def position(self) -> str:
        """`file:line:column`, as editors and terminals understand it."""
        return f"{self.file}:{self.line}:{self.column}"

    def __str__(self) -> str:
        """Return the message, the source line and a caret below the column."""
        path = f"{self.path}: " if self.path else ""
        lines = [f"{self.position}: {path}{self.what}"]
        if self.excerpt:
            caret = self.column - 1 if self.caret is None else self.caret
            lines += [f"    {self.excerpt}", "    " + " " * caret + "^"]
        if self.hint:
            lines.append(f"    {self.hint}")
        return "\n".join(lines)


class SpecError(DosimeterError):
    """A spec has problems; all of them are here, in file order.

    Args:
        problems: At least one.
    """

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        """Summarise the problems; `str()` gives all of them with their source lines."""
        noun = "problem" if len(problems) == 1 else "problems"
        super().__init__(f"{len(problems)} {noun} in the spec")
        self.problems = problems

    def __str__(self) -> str:
        """Return every problem, then the count."""
        return "\n".join([*(str(problem) for problem in self.problems), self.what])


class PlanError(DosimeterError):
    """The sweep cannot be planned."""


class UnknownAdapterError(PlanError, ValueError):
    """No adapter of that kind and name is installed, or it failed to import; a ValueError, so that pydantic reports it."""


class UnstableValueError(PlanError):
    """A value that has no stable bytes was about to enter a stage key."""


class RunError(DosimeterError):
    """The run cannot start or go on."""


class RunLostError(RunError):
    """A run that had begun cannot go on: its workers, or their cluster, are gone."""


class RunLockedError(RunError):
    """Another process drives this run directory."""


class StoreError(DosimeterError):
    """The run directory is missing, damaged, or not one of ours."""


class QueryError(DosimeterError):
    """The query is unknown, wrong, or ran past its time limit."""
