"""docs/reference/formats.md against the shapes and the benchmarks that are read; DOSIMETER_GOLDEN=write refreshes its tables."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from adapters.benchmarks.published import Published
from adapters.data.shapes import SHAPES

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "formats.md"
REFRESH = os.environ.get("DOSIMETER_GOLDEN") == "write"


def columns(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names) or "–"


def shapes() -> Iterator[str]:
    yield "| Shape | Needs | Also uses |"
    yield "|---|---|---|"
    for shape in SHAPES.values():
        needs = " and ".join(" or ".join(f"`{name}`" for name in names) for names in shape.needs)
        yield f"| `{shape.name}` | {needs} | {columns(shape.may)} |"


def benchmarks() -> Iterator[str]:
    yield "| Name | What it is | Prompt | Category | Id | Further columns | Prompts | Licence | Where it is |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for point in sorted(entry_points(group="dosimeter.benchmarks"), key=lambda point: point.name):
        kind = point.load()
        if isinstance(kind, type) and issubclass(kind, Published):
            own = kind.definition
            further = dict.fromkeys((*own.behavior, *own.context, *own.cluster))
            size = f"{own.prompts:,}" if own.prompts else "–"
            what = (kind.__doc__ or "").strip()
            yield (
                f"| `{point.name}` | {what} | {columns(own.prompt)} | {columns(own.category)} | {columns(own.identity)} |"
                f" {columns(tuple(further))} | {size} | {own.licence} | {own.place} |"
            )


@pytest.mark.parametrize("made", [shapes, benchmarks], ids=lambda made: made.__name__)
def test_the_tables_are_what_is_read(made: Callable[[], Iterator[str]]) -> None:
    page = PAGE.read_text(encoding="utf-8")
    before, mark, rest = page.partition(f"<!-- {made.__name__} -->\n")
    assert mark
    wanted = (
        "\n".join([f"{before}{mark}", *made()]).replace("-->\n\n", "-->\n") + f"\n{rest[rest.index('<!-- end -->') :]}"
    )
    if REFRESH and page != wanted:
        PAGE.write_text(wanted, encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == wanted, "meant? then run this test with DOSIMETER_GOLDEN=write"
