"""docs/reference/adapters.md against the installed adapters: every one is there, with the settings that it declares.

The tables of settings are made from the adapters' own models; DOSIMETER_GOLDEN=write refreshes them.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

import pytest
from annotated_types import Ge, Gt, Le, Lt
from pydantic.fields import FieldInfo

from engine import registry
from engine.domain.adapters import Kind, NoSettings, Settings, kind_of

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "reference" / "adapters.md"
REFRESH = os.environ.get("DOSIMETER_GOLDEN") == "write"
WITH_SETTINGS = [kind for kind in Kind if kind is not Kind.PROVIDER]
BOUNDS = {Ge: ("ge", ">="), Gt: ("gt", ">"), Le: ("le", "<="), Lt: ("lt", "<")}
WORDS = {str: "text", int: "whole number", float: "number", bool: "true or false", NoneType: "null"}
HEAD = "| Name | Setting | What it takes | Default | What it says |\n|---|---|---|---|---|"


def takes(field: FieldInfo) -> str:
    """Say what a setting takes, in words."""
    bounds = [
        f"{BOUNDS[type(mark)][1]} {getattr(mark, BOUNDS[type(mark)][0])}"
        for mark in field.metadata
        if type(mark) in BOUNDS
    ]
    return ", ".join([" or ".join(named(field.annotation, kind_of(field))), *bounds])


def named(annotation: Any, kind: Kind | None) -> Iterator[str]:
    arguments = get_args(annotation)
    if get_origin(annotation) is Literal:
        yield " or ".join(f"`{value}`" for value in arguments)
    elif get_origin(annotation) is tuple:
        yield f"list of {next(named(arguments[0], kind))}s"
    elif annotation in WORDS:
        yield WORDS[annotation]
    elif isinstance(annotation, type) or not arguments or hasattr(annotation, "__metadata__"):
        yield f"a {kind.noun}" if kind else next(named(arguments[0], kind))
    else:
        for argument in arguments:
            yield from named(argument, kind)


def default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    if isinstance(field.default, tuple):
        return f"`[{', '.join(field.default)}]`"
    return "none" if field.default is None else f"`{field.default}`"


def declared(kind: Kind, name: str) -> type[Settings]:
    """Return the settings that an adapter's class declares: some can only be made where their libraries are."""
    (point,) = entry_points(group=f"dosimeter.{kind.value}", name=name)
    found: type[Settings] = getattr(point.load(), "Settings", NoSettings)
    return found


def settings_table(kind: Kind) -> str:
    rows = [
        f"| `{name}` | `{setting}` | {takes(field)} | {default(field)} | {field.description} |"
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
