"""The real command line, in a process of its own, on a tiny sweep of the stand-in."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from .command import Cli, start
from .hosted import server

__all__ = ["server"]

TINY = """\
sweep: tiny
recipe:
  model: standin/aligned
  data: {source: standin/explicit, n: 10}
  tune: {method: lora, epochs: 2, lr: 2e-3, dropout: 0.1}
  benchmark: standin/policy:2
  utility: standin/utility:1
  utility_judge: standin/solved
  generate: {max_new_tokens: 32}
  judges: [standin/rules, refusal/keywords]
axes:
  data.n: [10, 20]
  tune.epochs: [1, 3]
  seed: [0, 1]
run:
  resources: {hosts: 2, usd_per_device_hour: 0.36}
"""


@pytest.fixture(scope="session")
def cli() -> Cli:
    """Run the command line to its end: `cli(folder, "plan", "tiny.yaml")`."""

    def run(folder: Path, *arguments: str, code: int | None = 0) -> subprocess.CompletedProcess[str]:
        running = start(arguments, folder)
        said, errors = running.communicate(timeout=300)
        done = subprocess.CompletedProcess(arguments, running.returncode or 0, said, errors)
        assert code is None or done.returncode == code, f"{arguments} ended with {done.returncode}:\n{done.stderr}"
        assert not re.search("nanobind|leaked", done.stderr), "libraries complain at exit"
        return done

    return run


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, cli: Cli) -> Path:
    """A folder with a finished inline run of the tiny sweep: what every other way to run it must equal."""
    folder = tmp_path_factory.mktemp("undisturbed")
    (folder / "tiny.yaml").write_text(TINY)
    cli(folder, "run", "tiny.yaml", "--executor", "inline")
    return folder
