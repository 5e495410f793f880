"""Benchmarks that are ended end what they began."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
PATIENCE_S = 300
STUBBORN = """
import subprocess, sys, time
import children
children.PATIENCE_S = 0.5
with children.workplace() as folder:
    ignoring = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(600)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {ignoring!r}])"
    child = subprocess.Popen([sys.executable, "-c", parent], cwd=folder, stdout=subprocess.PIPE)
    child.stdout.readline()
    time.sleep(600 if sys.argv[1] == "wait" else 1)
    raise RuntimeError("no more")
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, None])
def test_whatever_ends_a_benchmark_ends_its_grandchildren_and_removes_its_folder(
    number: signal.Signals | None, tmp_path: Path
) -> None:
    script = tmp_path / "stubborn.py"
    script.write_text(STUBBORN)
    line = [str(script), "wait" if number else "raise"]
    code, stayed = ended(line, tmp_path, lambda below: len(below) > 1, number)
    assert (code, stayed) == (128 + number if number else 1, [])
    assert not list(tmp_path.glob("ds-*"))


@pytest.mark.slow
def test_benchmarks_leave_neither_ray_nor_files() -> None:
    scripts: dict[tuple[str, ...], Callable[[list[str]], bool]] = {
        ("sharing.py", "--seeds", "1", "--ways", "dosimeter"): lambda below: "raylet" in below,
        ("real_shape.py", "--shape", "tiny", "--cells", "2", "--ways", "process"): bool,
        ("forecasts.py", "--only", "standin one"): bool,
    }
    with tempfile.TemporaryDirectory(prefix="d") as name, ThreadPoolExecutor() as pool:  # Ray's paths have to be short
        found = pool.map(
            lambda line, is_time: ended([str(BENCHMARKS / line[0]), *line[1:]], Path(name), is_time, signal.SIGTERM),
            scripts.keys(),
            scripts.values(),
        )
        assert list(found) == [(128 + signal.SIGTERM, [])] * len(scripts)
        assert not list(Path(name).glob("ds-*"))


def ended(
    line: list[str], folder: Path, is_time: Callable[[list[str]], bool], number: signal.Signals | None
) -> tuple[int, list[str]]:
    """Start a script, send it a signal once it has such processes below it, and return its exit code and who is left."""
    variables = os.environ | {"TMPDIR": str(folder), "PYTHONPATH": str(BENCHMARKS)}
    with (folder / f"{Path(line[0]).name}.log").open("w+") as said:
        script = subprocess.Popen([sys.executable, *line], env=variables, stdout=said, stderr=said)
        deadline, process, below = time.monotonic() + PATIENCE_S, psutil.Process(script.pid), set[psutil.Process]()
        while not is_time([found.name() for found in below if is_alive(found)]):
            assert script.poll() is None, Path(said.name).read_text()
            assert time.monotonic() < deadline
            below |= set(process.children(recursive=True))
            time.sleep(0.02)
        if number is not None:
            time.sleep(0.5)  # they are in the midst of it
            below |= set(process.children(recursive=True))
            script.send_signal(number)
        script.wait(timeout=PATIENCE_S)
    return script.returncode, [found.name() for found in below if is_alive(found)]


def is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
