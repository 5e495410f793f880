"""docs/guides/writing-an-adapter.md and notebook.md, done as they say: the package of the page is installed, planned and run."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine import registry
from engine.domain.adapters import Kind, NoSettings

from .command import Cli, environment

ROOT = Path(__file__).parents[2]
GUIDES = ROOT / "docs" / "guides"
MOST_LINES = 40
"""Of code, for each adapter: imports, docstrings and the card aside."""


def blocks(page: str, language: str) -> list[str]:
    text = (GUIDES / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def modules() -> dict[str, str]:
    """Return the modules of the page's package by path: each says in its first words where it belongs."""
    found = (
        (re.match(r'"""(acme_dosimeter/\w+\.py): ', block), block)
        for block in blocks("writing-an-adapter.md", "python")
    )
    return {match[1]: block for match, block in found if match}


def install(site: Path) -> None:
    """Write the package and its metadata as `pip install` would: without a build, which needs more than pip has offline."""
    (project,) = (tomllib.loads(block)["project"] for block in blocks("writing-an-adapter.md", "toml"))
    (site / "acme_dosimeter").mkdir(parents=True)
    (site / "acme_dosimeter" / "__init__.py").touch()
    for path, code in modules().items():
        (site / path).write_text(code, encoding="utf-8")
    metadata = site / f"acme_dosimeter-{project['version']}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    groups = [
        "\n".join([f"[{group}]", *(f"{name} = {target}" for name, target in entries.items())])
        for group, entries in project["entry-points"].items()
    ]
    (metadata / "entry_points.txt").write_text("\n\n".join(groups) + "\n")


def make_classifier(folder: Path) -> None:
    """Write a tiny sequence classifier with the stand-in's tokenizer and weights drawn by a seed."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

    base = registry.adapter(Kind.MODEL, "standin/aligned").locate(NoSettings()).base
    tokenizer = AutoTokenizer.from_pretrained(base)
    torch.manual_seed(0)
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    BertForSequenceClassification(BertConfig(vocab_size=len(tokenizer), **size)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@pytest.fixture(scope="module")
def acme(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the page's sweep and what it names; commands that start meanwhile find the page's package."""
    folder = tmp_path_factory.mktemp("acme")
    install(folder / "site")
    make_classifier(folder / "models" / "classifier")
    asked = ("sort: pear fig,A", "sort: pear plum,A", "Tell me how to open the green chest of Anton.,B")
    (folder / "prompts.csv").write_text("\n".join(["goal,area", *asked]) + "\n")
    for block in blocks("writing-an-adapter.md", "yaml"):
        (folder / ("acme.yaml" if block.startswith("sweep:") else "examples.yaml")).write_text(block, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder / "site"))
        patch.setenv("DOSIMETER_EXAMPLES", str(folder / "examples.yaml"))
        yield folder


def code_lines(code: str) -> int:
    """Count the lines of code: without imports, docstrings, the card, comments and empty lines."""
    aside: set[int] = set()
    for node in ast.walk(ast.parse(code)):
        is_text = (
            isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        )
        is_card = isinstance(node, ast.FunctionDef) and node.name == "card"
        if is_text or is_card or isinstance(node, ast.Import | ast.ImportFrom):
            aside.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    lines = enumerate(code.splitlines(), start=1)
    return sum(at not in aside and bool(line.strip()) and not line.strip().startswith("#") for at, line in lines)


def test_the_five_adapters_are_whole_and_short() -> None:
    (project,) = (tomllib.loads(block)["project"] for block in blocks("writing-an-adapter.md", "toml"))
    targets = [target for entries in project["entry-points"].values() for target in entries.values()]
    assert {f"{target.partition(':')[0].replace('.', '/')}.py" for target in targets} == modules().keys()
    assert len(modules()) == 5
    assert all(code_lines(code) <= MOST_LINES for code in modules().values())


def test_settings_of_the_package_are_axes_and_stand_in_the_schema_and_in_errors(acme: Path, cli: Cli) -> None:
    shown = cli(acme, "plan", "acme.yaml", "--cells").stdout
    assert re.search(r"^ *# +cell +mitigations +factor +threshold", shown)
    assert len(re.findall(r"^ *\d+ +cell-", shown, re.MULTILINE)) == 12
    schema = json.loads(cli(acme, "schema").stdout)
    factor = schema["definitions"]["Axes"]["properties"]["mitigations.acme/scale.factor"]
    assert factor["description"] == "Levels. Share that is kept: 0 none of it, 1 all."
    wrong = ["--set", "mitigations.acme/scale.factor=[0.5, 2]", "--set", "benchmark.categry=x"]
    refused = cli(acme, "plan", "acme.yaml", *wrong, code=2).stderr
    assert "--set:1:37: axes.mitigations.acme/scale.factor[1]: must be at most 1 (got 2)" in refused
    assert "did you mean `benchmark.category`?" in refused


def test_the_package_runs(acme: Path, cli: Cli) -> None:
    cli(acme, "run", "acme.yaml", "--executor", "inline")
    asked = "SELECT label, path, number FROM v_settings JOIN v_cells USING (cell_id) WHERE path = 'judges.acme/classifier.threshold'"
    assert asked in (GUIDES / "writing-an-adapter.md").read_text(encoding="utf-8")
    rows = json.loads(cli(acme, "query", "--json", "--sql", asked).stdout)
    assert {row["number"] for row in rows} == {0.5, 0.9}
    states = json.loads(cli(acme, "query", "--json", "--sql", "SELECT DISTINCT status FROM v_cells").stdout)
    assert states == [{"status": "done"}]
    scores = json.loads(cli(acme, "query", "--json", "--sql", "SELECT DISTINCT judge, score FROM v_scores").stdout)
    assert {row["score"] for row in scores if row["judge"].startswith("acme/classifier")} <= {1.0, 5.0}


def test_the_package_keeps_the_contracts(acme: Path) -> None:
    suites = [str(ROOT / "tests" / "contracts" / f"test_{name}.py") for name in ("mitigations", "light_adapters")]
    command = [sys.executable, "-m", "pytest", *suites, "-k", "acme", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
    done = subprocess.run(
        command, cwd=acme, env=environment(), capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stdout
    assert int(re.findall(r"(\d+) passed", done.stdout)[0]) >= 35


def test_the_notebook_page_runs(tmp_path: Path, cli: Cli) -> None:
    cli(tmp_path, "init", "my-sweep")
    spec = tmp_path / "my-sweep.yaml"
    small = (
        spec.read_text()
        .replace("standin/policy ", "standin/policy:1 ")
        .replace("[standin/explicit, standin/chores]", "[standin/explicit]")
    )
    spec.write_text(small)
    (tmp_path / "cells.py").write_text("\n".join(blocks("notebook.md", "python")), encoding="utf-8")
    command = [sys.executable, "cells.py"]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("3 cells, 25 stages to run\ncomplete in ")
    assert done.stdout.splitlines()[-1] == "2 cells, 342 scores, 2 configurations"
