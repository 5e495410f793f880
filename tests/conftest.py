"""What tests of several rooms share."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from engine import registry

RunApart = Callable[..., dict[str, str]]


@pytest.fixture(scope="session")
def run_apart() -> RunApart:
    """Run cases, scripts by name, after a preamble, in one process of their own: importing torch takes seconds, and torch
    and its friends warn about things that their users cannot change. Returns each one's error, or '' where it held."""

    def run(preamble: str, cases: Mapping[str, str], *arguments: str) -> dict[str, str]:
        script = f"""{preamble}
import json, traceback
outcome = {{}}
for name, case in {dict(cases)!r}.items():
    try:
        exec(case, dict(globals()))
        outcome[name] = ""
    except Exception:
        outcome[name] = traceback.format_exc()
print(json.dumps(outcome))
"""
        done = subprocess.run(
            [sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False, timeout=600
        )
        assert done.returncode == 0, done.stderr
        found: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
        return found

    return run


@pytest.fixture(scope="module")
def acme() -> Iterator[None]:
    """Install a third party's package while a module's tests run: its adapters and its metadata lie on the path, as pip has it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parent / "third_party")
        registry.refresh()
        yield
    registry.refresh()
