"""Ask a run's results as a user would: with `dosimeter query`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any


def asked(run: str | Path, sql: str, *, unseal: bool = False) -> list[dict[str, Any]]:
    """Return the rows of a query over a run."""
    command = [sys.executable, "-m", "engine.cli", "query", "--run", str(run), "--json", "--sql", sql]
    done = subprocess.run([*command, *(["--unseal"] if unseal else [])], check=True, stdout=subprocess.PIPE, text=True)
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found
