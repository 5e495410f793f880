"""docs/reference/views.md describes the views that exist, column by column."""

from __future__ import annotations

import re
from pathlib import Path

from engine.store.reader import open_results

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "views.md"


def documented() -> dict[str, list[tuple[str, str]]]:
    sections = re.split(r"^## ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    views = {text.split("\n", 1)[0]: text for text in sections if text.startswith("v_")}
    return {name: re.findall(r"^\| `(\w+)` \| ([^|]+?) \|", text, flags=re.MULTILINE) for name, text in views.items()}


def test_every_view_and_column_is_documented_in_order(empty_run: Path) -> None:
    with open_results(empty_run) as results:
        names = results.table(
            "SELECT view_name AS name FROM duckdb_views() WHERE database_name = 'results' AND starts_with(view_name, 'v_')"
        )["name"].to_pylist()
        real = {
            name: [(row["column_name"], row["column_type"]) for row in results.table(f"DESCRIBE {name}").to_pylist()]
            for name in names
        }
    assert documented() == real


def test_every_public_macro_is_documented(empty_run: Path) -> None:
    with open_results(empty_run) as results:
        macros = results.table(
            "SELECT function_name AS name FROM duckdb_functions() WHERE database_name = 'results' AND NOT internal"
        )["name"].to_pylist()
    public = {name for name in macros if not name.startswith("_")}
    assert public == set(re.findall(r"^\| `(\w+)\(", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE))


def test_no_column_is_left_without_words() -> None:
    for name, text in re.findall(
        r"^## (v_\w+)\n(.*?)(?=^## |\Z)", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    ):
        for line in re.findall(r"^\| `.*$", text, flags=re.MULTILINE):
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            assert len(cells) == 5, (name, line)
            assert all(cells), (name, line)
