"""The import law, the size of modules, and what a light verb may import."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import adapters
import analysis
import engine
from engine import registry
from engine.domain.adapters import Kind
from engine.store.layout import RunDirectory
from engine.store.publish import publish
from engine.store.state import State

ROOT = Path(__file__).parents[1]
CODE = ("engine", "adapters", "analysis")
LONGEST = 400
HEAVY = {"torch", "transformers", "ray", "trl", "peft", "datasets", "altair", "vl_convert"}
COUNTS = {"plan": {"transformers"}}
"""What a verb may import all the same: a plan counts tokens by the models' own chat templates."""


def python(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], cwd=cwd, capture_output=True, text=True, check=False)


def test_the_import_law_holds() -> None:
    done = python("-c", "from importlinter.cli import lint_imports_command; lint_imports_command(['--no-cache'])")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


def test_no_module_is_too_long_to_read() -> None:
    modules = [path for package in CODE for path in (ROOT / package).rglob("*.py")]
    assert len(modules) > 50
    long = {str(path.relative_to(ROOT)): n for path in modules if (n := len(path.read_text().splitlines())) > LONGEST}
    assert not long


def test_the_engine_names_no_provider() -> None:
    names = registry.names(Kind.PROVIDER)
    assert len(names) >= 3
    files = [path for path in (ROOT / "engine").rglob("*") if path.suffix in {".py", ".yaml", ".sql"}]
    assert {str(path): name for path in files for name in names if name in path.read_text(encoding="utf-8")} == {}


@pytest.mark.parametrize("package", [engine, adapters, analysis], ids=lambda package: package.__name__)
def test_the_packages_are_ours(package: object) -> None:
    """Another distribution could install a top-level package of the same name over one of these."""
    file = getattr(package, "__file__", None)
    assert file is not None
    assert Path(file).resolve().is_relative_to(ROOT)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run directory in which nothing has run."""
    run = RunDirectory(tmp_path_factory.mktemp("run"))
    State.open(run).close()
    publish(run)
    return run.root


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["init", "mine"],
        ["plan", str(ROOT / "sweeps" / "quickstart.yaml")],
        ["plan", str(ROOT / "sweeps" / "quickstart.yaml"), "--why", "0"],
        ["status", "--run", "RUN"],
        ["query", "--list", "--run", "RUN"],
        ["query", "cells", "--run", "RUN"],
        ["schema"],
    ],
    ids=" ".join,
)
def test_light_verbs_import_nothing_heavy(arguments: list[str], published: Path, tmp_path: Path) -> None:
    arguments = [str(published) if word == "RUN" else word for word in arguments]
    script = (
        "import sys\n"
        "from engine.cli.main import run_cli\n"
        "code = run_cli(sys.argv[1:])\n"
        "print(code, *sorted({name.partition('.')[0] for name in sys.modules}), file=sys.stderr)\n"
    )
    done = python("-c", script, *arguments, cwd=tmp_path)
    code, *imported = done.stderr.splitlines()[-1].split()
    assert code == "0", done.stderr
    assert not (HEAVY - COUNTS.get(arguments[0], set())) & set(imported)
