"""On a Ray cluster of three nodes: one is killed with its worker in mid-sweep, and a second run finds no place."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from .command import Cli, Running, start
from .conftest import TINY
from .tables import final_tables
from .test_disturbed import wait_for

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="each node has a loopback address of its own"),
]
HEAD = "127.0.0.2"


@dataclass
class Nodes:
    """A Ray cluster of nodes on this machine: a head without CPUs, as it is usual, and others with one.

    Attributes:
        address: Its address.
        variables: What the environment of whoever joins it has.
        others: The `ray start` of each other node.
    """

    address: str
    variables: dict[str, str]
    folder: Path
    others: list[subprocess.Popen[bytes]] = field(default_factory=list)
    _all: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, place: str, cpus: int, *more: str) -> None:
        name = f"n{len(self._all)}"
        command = [sys.executable, "-c", "from ray.scripts.scripts import main; main()", "start", "--block", *more]
        command += [f"--node-ip-address={place}", f"--num-cpus={cpus}", f"--temp-dir={self.folder / name}"]
        command += ["--object-store-memory=80000000", "--include-log-monitor=false", "--disable-usage-stats"]
        with (self.folder / f"{name}.log").open("wb") as log:
            node = subprocess.Popen(
                command, stdout=log, stderr=log, env=os.environ | self.variables, start_new_session=True
            )
        self._all.append(node)
        if cpus:
            self.others.append(node)

    def wait(self, node: int, words: str) -> None:
        """Wait until a node has said something."""
        log, deadline = self.folder / f"n{node}.log", time.monotonic() + 90
        while words not in log.read_text():
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)

    def kill(self, node: subprocess.Popen[bytes]) -> None:
        """Take a node away with all that runs on it."""
        processes = [psutil.Process(node.pid), *psutil.Process(node.pid).children(recursive=True)]
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        node.wait()
        psutil.wait_procs(processes, timeout=10)

    def close(self) -> None:
        for node in self._all:
            if node.poll() is None:
                self.kill(node)
        shutil.rmtree(self.folder, ignore_errors=True)


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    """A head and two nodes with a CPU each."""
    with socket.socket() as free:
        free.bind((HEAD, 0))
        port = free.getsockname()[1]
    variables = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    made = Nodes(f"{HEAD}:{port}", variables, Path(tempfile.mkdtemp(prefix="ray", dir="/tmp")))  # sockets: a short path
    try:
        made.start(HEAD, 0, "--head", f"--port={port}", "--include-dashboard=false")
        made.wait(0, "Ray runtime started")
        for place in ("127.0.0.3", "127.0.0.4"):
            made.start(place, 1, f"--address={made.address}")
        for node in (1, 2):
            made.wait(node, "Ray runtime started")
        yield made
    finally:
        made.close()


def wait_for_workers(nodes: list[subprocess.Popen[bytes]], running: Running) -> None:
    """Wait until every node has a worker of ours."""
    deadline = time.monotonic() + 90
    while not all(has_worker(node) for node in nodes):
        assert running.poll() is None, running.communicate()
        assert time.monotonic() < deadline, "no workers come"
        time.sleep(0.02)


def has_worker(node: subprocess.Popen[bytes]) -> bool:
    try:
        names = [process.name() for process in psutil.Process(node.pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return False
    return any(name.startswith("ray::RayWorker") for name in names)


def test_a_run_without_a_place_ends_and_one_that_loses_a_node_has_the_tables_of_an_undisturbed_run(
    nodes: Nodes, tmp_path: Path, undisturbed: Path, cli: Cli
) -> None:
    (tmp_path / "tiny.yaml").write_text(TINY)
    running = start(["run", "tiny.yaml"], tmp_path, RAY_ADDRESS=nodes.address, **nodes.variables)
    wait_for_workers(nodes.others, running)

    os.kill(running.pid, signal.SIGSTOP)  # it keeps its workers, and they keep the CPUs of both nodes
    more = ["--out", "second", "--ray-address", nodes.address, "--set", "run.resources.placement_seconds=3"]
    second = start(["run", "tiny.yaml", *more], tmp_path, **nodes.variables)
    _, errors = second.communicate(timeout=120)
    os.kill(running.pid, signal.SIGCONT)
    assert second.returncode == 2, errors
    assert re.search(r"nothing can go on: \S+ has not been there for 3 s, for no node has resources free", errors)
    assert json.loads(cli(tmp_path, "status", "--json", "--run", "second").stdout)["phase"] == "interrupted"

    wait_for(tmp_path / "runs" / "tiny", 5, running)
    nodes.kill(nodes.others.pop())
    _, errors = running.communicate(timeout=120)
    assert running.returncode == 0, errors
    assert len(re.findall(r"model-worker-\d died and was replaced", errors)) == 1
    assert final_tables(tmp_path / "runs" / "tiny") == final_tables(undisturbed / "runs" / "tiny")
