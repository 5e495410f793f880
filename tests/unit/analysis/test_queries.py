"""Named queries run everywhere, say what they return, and are documented."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from analysis.query import NamedQuery, ask, named_queries, named_query
from engine.domain.errors import QueryError, StoreError

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "queries.md"
QUERIES = {query.name: query for query in named_queries()}


def columns_of(query: NamedQuery) -> list[tuple[str, str]]:
    """Name and meaning of each column, as the comments say them."""
    return re.findall(r"^--   (\w+): (.+)$", query.sql, flags=re.MULTILINE)


@pytest.mark.parametrize("query", QUERIES.values(), ids=list(QUERIES))
def test_each_runs_full_and_empty(query: NamedQuery, small_run: Path, empty_run: Path) -> None:
    columns = [name for name, _ in columns_of(query)]
    assert ask(small_run, query.name).column_names == columns
    assert ask(empty_run, query.name).to_pylist() == []
    assert ask(empty_run, query.name).column_names == columns


@pytest.mark.parametrize("query", QUERIES.values(), ids=list(QUERIES))
def test_each_says_what_it_answers(query: NamedQuery) -> None:
    assert query.answers.rstrip(")").endswith(("?", "."))
    assert "_scores" not in query.sql.replace("v_scores", "")  # only the public views


def test_the_asked_for_ones_exist() -> None:
    asked = "cells dose categories pairs cost pareto problems seeds cheapest judges utility"
    assert set(asked.split()) <= set(QUERIES)


def test_the_page_names_them_and_their_columns() -> None:
    text = PAGE.read_text(encoding="utf-8")
    sections = {part.split("\n", 1)[0]: part for part in re.split(r"^## ", text, flags=re.MULTILINE)[1:]}
    found = {name: re.findall(r"^\| `(\w+)` \| (.+) \|$", part, flags=re.MULTILINE) for name, part in sections.items()}
    assert found == {name: columns_of(query) for name, query in QUERIES.items()}
    assert all(query.answers in sections[name] for name, query in QUERIES.items())


def test_sql_of_ones_own(small_run: Path) -> None:
    assert ask(small_run, "SELECT count(*) AS n FROM v_cells").to_pylist() == [{"n": 17}]
    assert ask(small_run, "SELECT ? AS n", [3]).to_pylist() == [{"n": 3}]


def test_unknown_names() -> None:
    with pytest.raises(QueryError) as near:
        named_query("cels")
    assert "`cells`" in near.value.todo
    with pytest.raises(QueryError) as view:
        named_query("v_cells")
    assert "FROM v_cells" in view.value.todo
    with pytest.raises(QueryError) as far:
        named_query("zzzzzz")
    assert "pareto" in far.value.todo


def test_no_results_is_said(tmp_path: Path) -> None:
    with pytest.raises(StoreError):
        ask(tmp_path, "cells")


def test_numbers_of_some_queries(small_run: Path) -> None:
    judges = ask(small_run, "judges").to_pylist()
    assert [(row["judge_a"], row["judge_b"]) for row in judges] == [("refusal/keywords", "standin/rules")]
    assert judges[0]["agreement"] == pytest.approx(
        1.0
    )  # the made-up keyword judge refuses exactly where the rules give 1
    cost = ask(small_run, "cost").to_pylist()
    assert sum(row["n_stages"] for row in cost) == 17 * 4 + 16
    cheapest = {row["data_source"]: row for row in ask(small_run, "cheapest").to_pylist()}
    assert cheapest["standin/explicit"]["harmfulness_rate"] >= 0.5


def test_asking_is_light() -> None:
    heavy = ("altair", "numpy", "scipy", "pandas", "torch", "ray", "vl_convert", "jinja2")
    code = f"import sys, analysis.query; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
