"""docs/reference/adapters.md against the installed adapters: every one is there, with the settings that it declares.

The tables of settings are made from the adapters' own models; DOSIMETER_GOLDEN=write refreshes them.
"""

from __future__ import annotations

import os
import re
import tomllib
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from pydantic.fields import FieldInfo

from engine import registry
from engine.cli.adapters_verb import default, takes
from engine.domain.adapters import Kind, NoSettings, Settings

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "reference" / "adapters.md"
REFRESH = os.environ.get("DOSIMETER_GOLDEN") == "write"
WITH_SETTINGS = [kind for kind in Kind if kind is not Kind.PROVIDER]
HEAD = "| Name | Setting | What it takes | Default | What it says |\n|---|---|---|---|---|"


def declared(kind: Kind, name: str) -> type[Settings]:
    """Return the settings that an adapter's class declares: some can only be made where their libraries are."""
    (point,) = entry_points(group=f"dosimeter.{kind.value}", name=name)
    found: type[Settings] = getattr(point.load(), "Settings", NoSettings)
    return found


def said(field: FieldInfo) -> str:
    words = default(field)
    return words if words in {"required", "none"} else f"`{words}`"


def settings_table(kind: Kind) -> str:
    rows = [
        f"| `{name}` | `{setting}` | {takes(field)} | {said(field)} | {field.description} |"
        for name in registry.names(kind)
        for setting, field in declared(kind, name).model_fields.items()
    ]
    return "\n".join([HEAD, *rows])


@pytest.mark.parametrize("kind", WITH_SETTINGS)
def test_the_settings_are_those_that_the_adapters_declare(kind: Kind) -> None:
    page = PAGE.read_text(encoding="utf-8")
    before, mark, rest = page.partition(f"<!-- settings: {kind.value} -->\n")
    assert mark, kind
    wanted = f"{before}{mark}{settings_table(kind)}\n{rest[rest.index('<!-- end -->') :]}"
    if REFRESH and page != wanted:
        PAGE.write_text(wanted, encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == wanted, "meant? then run this test with DOSIMETER_GOLDEN=write"


def described(body: str) -> list[list[str]]:
    """Return the cells of a section's own table, without backticks."""
    own = re.sub(r"<!-- settings: .*?<!-- end -->", "", body, flags=re.DOTALL)
    rows = re.findall(r"^\| `.*$", own, re.MULTILINE)
    return [[cell.strip().strip("`") for cell in row.strip("|").split(" | ")] for row in rows]


def test_every_adapter_is_described() -> None:
    points = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["entry-points"]
    real = {group.removeprefix("dosimeter."): set(entries) for group, entries in points.items()}
    assert set(real) == {kind.value for kind in Kind} | {"defaults"}
    shown = {}
    for section in PAGE.read_text(encoding="utf-8").split("\n## ")[1:]:
        head, _, body = section.partition("\n")
        rows = described(body)
        assert all(len(row) == 3 and all(row) for row in rows), head
        if head == "Defaults":
            assert {path: written for path, written, _ in rows} == {
                p: registry.INSTALLED.default(p) for p in real["defaults"]
            }
        elif head.lower() in real:
            assert all(written.removeprefix("{use: ").startswith(name) for name, written, _ in rows), head
        shown[head.lower()] = {name for name, _, _ in rows}
    assert {head: names for head, names in shown.items() if head in real} == real
