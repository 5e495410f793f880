"""Ask a run: named questions (`queries/*.sql`) or SQL of one's own. Light to import: no charts, no statistics."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from engine.domain.errors import QueryError
from engine.store.reader import open_results

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from importlib.resources.abc import Traversable
    from pathlib import Path

    import pyarrow as pa

_NAME = re.compile(r"[\w-]+")


@dataclass(frozen=True, slots=True)
class NamedQuery:
    """A question with a name.

    Attributes:
        name: What a person types.
        answers: The question that it answers, in a sentence.
        sql: The statement, with comments that say what its columns hold.
    """

    name: str
    answers: str
    sql: str


@cache
def named_queries() -> tuple[NamedQuery, ...]:
    """Return every named query, by name."""
    folder = files("analysis").joinpath("queries")
    found = [entry for entry in folder.iterdir() if entry.name.endswith(".sql")]
    return tuple(_read(entry) for entry in sorted(found, key=lambda entry: entry.name))


def named_query(name: str) -> NamedQuery:
    """Return the query of that name.

    Raises:
        QueryError: When there is none; the nearest names are suggested.
    """
    queries = {query.name: query for query in named_queries()}
    if name in queries:
        return queries[name]
    near = difflib.get_close_matches(name, queries, n=1)
    todo = f"Did you mean `{near[0]}`?" if near else f"There are: {', '.join(queries)}."
    if name.startswith("v_"):
        todo = f"To see a view, write SQL: `FROM {name}`."
    raise QueryError(f"there is no query called `{name}`", todo=todo)


def ask(
    run_dir: Path,
    question: str,
    parameters: Sequence[object] | Mapping[str, object] | None = None,
    *,
    unseal: bool = False,
    timeout_s: float = 60.0,
) -> pa.Table:
    """Answer one question about a run.

    Args:
        run_dir: The run directory.
        question: A named query's name, or one SELECT-like statement.
        parameters: Values for `?` or `$name` in the statement.
        unseal: Also make the sealed texts visible, as `v_responses` and `v_verdicts`.
        timeout_s: Seconds after which the query is stopped, > 0.

    Raises:
        QueryError: When the question is unknown or wrong, or took too long.
        StoreError: When the run has no readable results.
    """
    sql = named_query(question.strip()).sql if _NAME.fullmatch(question.strip()) else question
    with open_results(run_dir, unseal=unseal, timeout_s=timeout_s) as results:
        return results.table(sql, parameters)


def _read(entry: Traversable) -> NamedQuery:
    text = entry.read_text(encoding="utf-8")
    return NamedQuery(entry.name.removesuffix(".sql"), text.splitlines()[1].removeprefix("-- Answers: "), text)
