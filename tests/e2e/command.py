"""The real command line, in processes of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

Cli = Callable[..., subprocess.CompletedProcess[str]]
DOSIMETER = [sys.executable, "-c", "from engine.cli.main import main; main()"]


def environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"} | {"NO_COLOR": "1"}


def start(arguments: Sequence[str], folder: Path) -> subprocess.Popen[str]:
    """Start the command line in the background, in a session of its own."""
    return subprocess.Popen(
        [*DOSIMETER, *arguments],
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
