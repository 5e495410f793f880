"""The JSON Schema, the starter and the specs in the documentation: three descriptions of one language, held together."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator

from engine.domain.errors import DosimeterError, SpecError
from engine.spec.expand import expand
from engine.spec.leaves import OLD_NAMES, Leaves
from engine.spec.load import FIELDS, read_sweep
from engine.spec.positions import Problems, Source
from engine.spec.schema import json_schema
from engine.spec.starter import starter
from engine.spec.yaml_nodes import compose

ROOT = Path(__file__).parents[3]
GOLDEN = ROOT / "tests" / "golden" / "schema.json"
DOCS = (ROOT / "docs" / "reference" / "spec.md", ROOT / "docs" / "guides" / "writing-a-sweep.md")


def plain(text: str) -> Any:
    found = compose(Source.of("x", text), text, Problems())
    assert found is not None
    return found[0]


def blocks() -> list[Any]:
    found = []
    for path in DOCS:
        for number, block in enumerate(re.findall(r"```yaml\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL)):
            if re.search(r"^sweep:", block, re.MULTILINE):
                found.append(pytest.param(block, id=f"{path.name}-{number}"))
    return found


SPECS = [
    pytest.param(starter("mine"), id="starter"),
    *(pytest.param(path.read_text(encoding="utf-8"), id=path.name) for path in sorted(ROOT.glob("sweeps/*.yaml"))),
    *blocks(),
]


def test_the_schema_is_draft_07_and_as_it_was() -> None:
    schema = json_schema()
    Draft7Validator.check_schema(schema)
    text = json.dumps(schema, indent=1) + "\n"
    if os.environ.get("DOSIMETER_GOLDEN") == "write":
        GOLDEN.write_text(text, encoding="utf-8")
    assert text == GOLDEN.read_text(encoding="utf-8"), "meant? then run this test with DOSIMETER_GOLDEN=write"


def test_the_schema_knows_every_field_and_every_path() -> None:
    schema = json_schema()
    assert set(schema["properties"]) == set(FIELDS)
    for name in ("Axes", "Patterns", "Levels"):
        assert list(schema["definitions"][name]["properties"]) == [*Leaves.of_installed().by_path, *OLD_NAMES]
    assert all(p.get("description") for p in schema["definitions"]["Axes"]["properties"].values())
    used = set(re.findall(r"#/definitions/([^\"]+)", json.dumps(schema)))
    assert used == set(schema["definitions"])


@pytest.mark.parametrize("text", SPECS)
def test_specs_load_expand_and_satisfy_the_schema(text: str) -> None:
    loaded = read_sweep(text.encode(), "x.yaml")
    assert expand(loaded.sweep, loaded.positions).cells
    assert not list(Draft7Validator(json_schema()).iter_errors(plain(text)))


@pytest.mark.parametrize(
    "more",
    [
        "axes: {tune.lrr: [1]}",
        "axes: {data.n: [0]}",
        "axes: {data.n: []}",
        "axes: {data.n: [1, 1]}",
        "axes: {tune.method: [loar]}",
        "axes: {judges: [a]}",
        "zip: {data.n: [1]}",
        "when: [{if: {seed: 0}}]",
        "exclude: [{}]",
        "exclude: [{data.n: x}]",
        "include: [{data.n: [1]}]",
        "run: {max_cell: 4}",
        "nope: 1",
    ],
)
def test_what_the_schema_refuses_the_loader_refuses(more: str) -> None:
    text = f"{starter('mine').partition('axes:')[0]}{more}\n"
    assert list(Draft7Validator(json_schema()).iter_errors(plain(text)))
    with pytest.raises(SpecError):
        read_sweep(text.encode(), "x.yaml")


def test_the_starter_takes_a_name_that_a_sweep_can_have() -> None:
    loaded = read_sweep(starter("rank-study").encode(), "x.yaml")
    assert loaded.sweep.sweep == "rank-study"
    assert expand(loaded.sweep).counts.tuned == 16
    for name in ("123", "null", "true", "1e3", "0x1f", "no"):
        assert read_sweep(starter(name).encode(), "x.yaml").sweep.sweep == name
    with pytest.raises(DosimeterError, match="not a usable name"):
        starter("../Escape: x")


def test_every_commented_line_of_the_starter_is_right_as_well() -> None:
    shown = re.sub(r"^# (?=(zip|when|exclude|include):|  - )", "", starter("mine"), flags=re.MULTILINE)
    shown = re.sub(r"^  # (?=resources)", "  ", shown, flags=re.MULTILINE).replace("device_hours: 1", "usd: 1")
    loaded = read_sweep(shown.encode(), "x.yaml")
    counts = expand(loaded.sweep, loaded.positions).counts
    assert (counts.product, counts.zipped, counts.excluded > 0, counts.included) == (16, 2, True, 1)
    assert loaded.sweep.whens
    assert loaded.sweep.run.resources.usd_per_device_hour is not None


def test_the_documentation_counts_right() -> None:
    found = {}
    for block in blocks():
        sweep = read_sweep(block.values[0].encode(), "x.yaml").sweep
        counts = expand(sweep).counts
        found[sweep.sweep] = (counts.product * counts.zipped, counts.conditional, counts.excluded, counts.tuned)
    assert found == {
        "reference-example": (9, 9, 1, 8),
        "worked-counts": (24, 36, 12, 25),
        "one-experiment": (1, 1, 0, 1),
        "how-much-data": (18, 18, 0, 18),
        "same-rows": (9, 9, 0, 9),
        "any-setting": (12, 12, 0, 12),
        "how-long": (6, 6, 0, 6),
        "as-in-the-paper": (1, 1, 0, 1),
        "fair-comparison": (12, 24, 2, 22),
        "a-few-more": (4, 4, 0, 5),
        "two-accounts": (1, 1, 0, 1),
    }


def test_the_documentation_has_every_code() -> None:
    # Codes are written as literals: `code="…"`, or the third argument of a Finding.
    literal = re.compile(r'code="(\w+)"|Finding\([^)]*?, "([a-z]+(?:_[a-z0-9]+)*)"[,)]')
    modules = [*(ROOT / "engine" / "spec").glob("*.py"), *(ROOT / "engine" / "plan").glob("check*.py")]
    codes = {a or b for path in modules for a, b in literal.findall(path.read_text(encoding="utf-8"))}
    assert len(codes) > 30
    assert not [code for code in codes if f"`{code}`" not in DOCS[0].read_text(encoding="utf-8")]


def test_the_documentation_has_every_field() -> None:
    reference = DOCS[0].read_text(encoding="utf-8")
    own = [path for path, leaf in Leaves.of_installed().by_path.items() if not leaf.adapters]
    assert not [path for path in own if f"`{path}`" not in reference]
    assert not [name for name in FIELDS if f"`{name}`" not in reference]
    run = json_schema()["definitions"]
    settings = [
        name
        for model in ("RunSettings", "Budget", "Resources", "Account", "Quota")
        for name in run[model]["properties"]
    ]
    assert not [name for name in settings if f"{name}`" not in reference]
