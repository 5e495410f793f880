"""Runs Dosimeter's command line in a process of its own and says what that process cost."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

NOOP = Path(__file__).with_name("noop")
MEASURED = """\
import atexit, resource, sys
def tell(path):
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(used.ru_utime + used.ru_stime, used.ru_maxrss / 1024, file=open(path, "w"))
atexit.register(tell, sys.argv.pop(1))
from engine.cli.main import main
main()
"""
"""The command, which says at its very end what it used itself; its children, such as Ray's, are not counted."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What a command cost.

    Attributes:
        cpu_s: CPU seconds of its own process.
        wall_s: Wall seconds.
        peak_mb: Its largest resident memory, in MB (2^20 bytes).
        output: What it printed on stdout.
    """

    cpu_s: float
    wall_s: float
    peak_mb: float
    output: str


def command(account: Path, *arguments: str) -> list[str]:
    """Return the command line that runs `dosimeter` with these arguments and leaves its account in a file."""
    return [sys.executable, "-c", MEASURED, str(account), *arguments]


def environment() -> dict[str, str]:
    """Return an environment in which the no-op adapters are installed, and Ray is local."""
    kept = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    paths = [str(NOOP), *kept.get("PYTHONPATH", "").split(os.pathsep)]
    return kept | {"PYTHONPATH": os.pathsep.join(path for path in paths if path), "NO_COLOR": "1"}


def cost(*arguments: str, folder: Path) -> Cost:
    """Run the command line once, in `folder`.

    Raises:
        SystemExit: When the command fails, with what it said.
    """
    with tempfile.NamedTemporaryFile("r") as account:
        begun = time.monotonic()
        line = command(Path(account.name), *arguments)
        done = subprocess.run(line, cwd=folder, env=environment(), capture_output=True, text=True, check=False)
        wall = time.monotonic() - begun
        if done.returncode:
            raise SystemExit(f"dosimeter {' '.join(arguments)} ended with {done.returncode}:\n{done.stderr[-2000:]}")
        cpu, peak = map(float, Path(account.name).read_text().split())
    return Cost(cpu, wall, peak, done.stdout)


def best(*arguments: str, folder: Path, times: int = 3) -> Cost:
    """Return the cheapest of several runs: the others paid for somebody else's work too."""
    return min((cost(*arguments, folder=folder) for _ in range(times)), key=lambda found: found.cpu_s)
