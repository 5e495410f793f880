"""Forked hosts: they hear no interrupt, bear what cannot be imported, end when told, and leave nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from engine.domain.adapters import Kind
from engine.run.executors.forks import Forks, can_fork
from engine.run.executors.relay import Line, Relay, connected
from engine.run.executors.worker import HostSettings

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not can_fork(), reason="hosts are forked on Linux")]

MISSING = ((Kind.GENERATOR, "no/such"),)


SETTINGS = HostSettings(Path(), "cpu", 1, 8)


@pytest.fixture
def forks() -> Iterator[Forks]:
    forks = Forks(MISSING)
    yield forks
    forks.close()


def forked(forks: Forks, *names: str) -> list[Line]:
    lines = [forks.line(name) for name in names]
    for name in names:
        forks.fork(name, SETTINGS)
    return lines


def hosts() -> list[psutil.Process]:
    return [one for one in psutil.Process().children(recursive=True) if one.name().startswith("host-")]


def waited(count: int) -> list[psutil.Process]:
    """Hosts, once there are so many: they are named a moment after they were forked."""
    deadline = time.monotonic() + 30
    while len(found := hosts()) != count:
        assert time.monotonic() < deadline, found
        time.sleep(0.01)
    return found


def test_a_host_that_cannot_import_listens_and_no_interrupt_reaches_it(forks: Forks) -> None:
    lines = forked(forks, "host-0", "host-1")
    processes = waited(2)
    server = processes[0].parent()
    assert server is not None
    for process in (*processes, server):
        status = Path(f"/proc/{process.pid}/status").read_text()
        blocked = int(status.partition("SigBlk:")[2].split()[0], 16)
        assert blocked >> (signal.SIGINT - 1) & 1, (process, status)
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ()) & {signal.SIGINT}, "this process hears them as before"
    assert "DOSIMETER_NEEDED" not in os.environ
    for line in lines:
        connected(line).close()


def test_hosts_end_at_once_when_told(forks: Forks) -> None:
    forked(forks, "host-0", "host-1", "host-2")
    processes = waited(3)
    begun = time.monotonic()
    forks.close()
    assert not psutil.wait_procs(processes, timeout=0)[1]
    assert time.monotonic() - begun < 2
    forks.close()


def test_how_a_host_died_is_told(forks: Forks) -> None:
    forked(forks, "host-0", "host-1")
    waited(2)[0].kill()
    deadline = time.monotonic() + 10
    while not (endings := [forks.ending(name) for name in ("host-0", "host-1") if forks.ending(name)]):
        assert time.monotonic() < deadline
    assert endings == ["its process ended with signal SIGKILL"]


def test_a_relay_fails_when_its_host_is_gone(forks: Forks) -> None:
    (line,) = forked(forks, "host-0")
    bundles = Relay(line).run(b"no bundle: whoever reads it dies of it")
    with pytest.raises((EOFError, ConnectionError)):
        list(bundles)


def test_the_program_that_forks_is_not_run_in_the_forks(tmp_path: Path) -> None:
    (tmp_path / "secrets.py").write_text("raise SystemExit('a module of the folder that one happens to be in')")
    (tmp_path / "program.py").write_text(
        "from pathlib import Path\n"
        "from engine.run.executors.forks import Forks\n"
        "from engine.run.executors.relay import connected\n"
        "from engine.run.executors.worker import HostSettings\n"
        "open('ran', 'a').write('once ')\n"
        "forks = Forks(())\n"
        "line = forks.line('host-0')\n"
        "forks.fork('host-0', HostSettings(Path(), 'cpu', 1, 8))\n"
        "connected(line)\n"
        "forks.close()\n"
    )
    program = [sys.executable, "-P", "program.py"]
    done = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (tmp_path / "ran").read_text() == "once "
